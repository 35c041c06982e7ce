"""ZeroShot.py: scenes recognised by their names, as open_clip's own procedure does; its tables and its mistakes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

import ZeroShot
from dataset.pictures import load_picture
from dataset.transforms import evaluation_transform
from models import load
from models.encoders import normalise
from tests.processes import run_on_processes
from tests.tiny import FILES, weight
from tests.tiny_folder import picture, write_model
from utils.config import config_from_dict
from utils.errors import InputError
from utils.typed import write_yaml
from zeroshot.class_names import class_words, published_names
from zeroshot.classifying import class_embeddings, nearest_classes
from zeroshot.pictures import read_pictures
from zeroshot.result import measure
from zeroshot.templates import prompts, read_templates

ROOT = Path(__file__).parents[1]
CLIP = "configs/config_clip_demo.json"
CLASSES = ["Airport", "BareLand", "Beach", "Bridge", "Church", "Desert", "storage_tank"]
TEMPLATES = ["an aerial photo of a {}.", "A satellite image of {}, seen from above!", "{}"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Class folders with two pictures each, and what is no picture."""
    folder = tmp_path_factory.mktemp("scenes")
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for copy in range(2):
            Image.fromarray(picture(10 * number + copy)).save(folder / name / f"{copy}.png")
    (folder / CLASSES[0] / "Thumbs.db").touch()
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Weights of a small CLIP pair under open_clip's names, as foreign ones without a config beside; its config."""
    folder = tmp_path_factory.mktemp("clip")
    alone = {"clip_model": CLIP, "is_baseline": True, "use_affil_loss": False, "vision_config": {}}
    config = config_from_dict(FILES | alone)
    state = open_clip.CLIP(**json.loads((ROOT / CLIP).read_text())).state_dict()
    torch.save({name: weight(name, tensor.shape) for name, tensor in state.items()}, folder / "foreign.pt")
    write_yaml(config.to_dict(), folder / "experiment.yaml")
    return folder / "foreign.pt", folder / "experiment.yaml"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("run"))


def run(images, output, *arguments):
    ZeroShot.main(["--images", str(images), "--output_dir", str(output), "--device", "cpu", *map(str, arguments)])
    return json.loads((output / "result.json").read_text())


# ---- open_clip's own procedure ----


def open_clips_own(weights):
    """The same weights in open_clip's own class, and its tokenizer."""
    sizes = json.loads((ROOT / CLIP).read_text())
    model = open_clip.CLIP(**sizes).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model, open_clip.SimpleTokenizer(context_length=sizes["text_cfg"]["context_length"])


def test_classes_and_predictions_are_those_of_open_clips_zero_shot_classifier(scenes, clip):
    embedder = load(clip[0], config_file=clip[1], device="cpu")
    found = read_pictures(scenes, [])
    words, _ = class_words(found.classes, None)
    files = [one.image for one in found.pictures]
    classes = class_embeddings(embedder, words, TEMPLATES)
    nearest = nearest_classes(embedder, files, classes)

    theirs, tokenizer = open_clips_own(clip[0])
    wanted = open_clip.build_zero_shot_classifier(
        theirs, tokenizer, words, TEMPLATES, num_classes_per_batch=3
    )  # [D, C]
    transform = evaluation_transform(112)
    with torch.no_grad():
        images = normalise(torch.stack([transform(load_picture(file)) for file in files]))
        embeds = theirs.encode_image(images, normalize=True)
        logits = theirs.logit_scale.exp() * embeds @ wanted  # [N, C]
    torch.testing.assert_close(classes.T, wanted, atol=1e-5, rtol=0)
    cosines = torch.from_numpy(embedder.embed_images(files)) @ classes.T
    torch.testing.assert_close(cosines, embeds @ wanted, atol=1e-5, rtol=0)
    assert torch.equal(nearest, logits.topk(5, dim=1).indices)
    assert len(set(nearest[:, 0].tolist())) > 1  # or it would say little


def test_a_clip_pair_reads_sentences_as_written_and_other_models_as_captions(clip, tiny):
    marked, bare = ["A {}, seen from above!"], ["a {} seen from above"]
    pair = load(clip[0], config_file=clip[1], device="cpu")
    assert not torch.allclose(
        class_embeddings(pair, ["lake"], marked), class_embeddings(pair, ["lake"], bare), atol=1e-3
    )
    model = load(tiny, device="cpu")
    assert torch.equal(class_embeddings(model, ["lake"], marked), class_embeddings(model, ["lake"], bare))


# ---- the script ----


def test_a_foreign_clip_file_is_measured_from_the_command_line(scenes, clip, tmp_path, capsys):
    templates = tmp_path / "mine.txt"
    templates.write_text("# a comment\n\n" + "\n".join(TEMPLATES) + "\n")
    given = ("--checkpoint", clip[0], "--config", clip[1], "--templates", templates)
    result = run(scenes, tmp_path / "out", *given)
    assert result["classes"] == CLASSES and result["pictures"] == 14 and result["templates"] == TEMPLATES
    assert result["per_class"]["storage_tank"]["words"] == "storage tank"
    right = sum(one["top1"] / 100 * one["pictures"] for one in result["per_class"].values())
    assert result["top1"] == pytest.approx(100 * right / 14, abs=0.01) and result["top5"] >= result["top1"]
    assert Image.open(tmp_path / "out/confusion.png").width > 100
    printed = capsys.readouterr()
    assert all(f"\n  {template}\n" in printed.out for template in TEMPLATES)
    assert "1 files are no pictures by their names (1 .db): left out" in printed.out
    assert f"top-1 {result['top1']:.2f}, top-5 {result['top5']:.2f}" in printed.out
    assert "embedding pictures: 1/1" in printed.err or "embedding pictures: 14/14" in printed.err


def test_annotation_files_of_both_kinds_give_what_their_class_folders_do(scenes, tiny, tmp_path):
    whole = run(scenes, tmp_path / "folders", "--checkpoint", tiny)
    records = [(f"{name}/{copy}.png", name) for name in CLASSES for copy in range(2)]
    evaluation = [
        {"image": i, "caption": ["a lake"], "label": CLASSES.index(n), "label_name": n} for i, n in records[4:]
    ]
    train = [
        {"image": i, "caption": "a lake", "image_id": k // 2, "label": CLASSES.index(n), "label_name": n}
        for k, (i, n) in enumerate([one for one in records[:4] for _ in range(2)])
    ]
    files = [tmp_path / "val.json", tmp_path / "train.json"]
    for file, content in zip(files, (evaluation, train), strict=True):
        file.write_text(json.dumps(content))
    result = run(scenes, tmp_path / "files", "--checkpoint", tiny, "--annotations", *files)
    assert result["source"] == f"{files[0]}, {files[1]}" and result["split"] == "val"
    assert {key: result[key] for key in ("top1", "top5", "per_class")} == {
        key: whole[key] for key in ("top1", "top5", "per_class")
    }


def test_a_second_result_keeps_the_first_and_a_training_is_not_written_over(scenes, tiny, tmp_path):
    first = run(scenes, tmp_path / "out", "--checkpoint", tiny)
    run(scenes, tmp_path / "out", "--checkpoint", tiny, "--names", "as_given")
    (earlier,) = (tmp_path / "out/earlier").iterdir()
    assert json.loads((earlier / "result.json").read_text()) == first
    assert not (tmp_path / "out/.lock").exists()
    (tmp_path / "out/log.txt").touch()
    with pytest.raises(InputError, match="already holds a run"):
        run(scenes, tmp_path / "out", "--checkpoint", tiny)


def nearest_on_a_process(folder, scenes):
    """What one of several processes finds nearest, in batches of three pictures."""
    embedder = load(folder, device="cpu", override=["batch_size_test=3", "batch_size_test_text=4"])
    found = read_pictures(Path(scenes), [])
    classes = class_embeddings(embedder, class_words(found.classes, None)[0], TEMPLATES)
    return classes, nearest_classes(embedder, [one.image for one in found.pictures], classes)


def test_several_processes_share_the_work_and_find_the_same(scenes, tiny):
    classes, nearest = nearest_on_a_process(str(tiny), str(scenes))
    for of_process in run_on_processes(2, nearest_on_a_process, str(tiny), str(scenes)):
        torch.testing.assert_close(of_process[0], classes, atol=1e-6, rtol=0)
        assert torch.equal(of_process[1], nearest)


def test_under_torchrun_one_process_writes(scenes, tiny, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "ZeroShot.py"]
    command += ["--images", scenes, "--checkpoint", tiny, "--output_dir", tmp_path / "out", "--device", "cpu"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/result.json").read_text())["processes"] == 2
    assert done.stdout.count("\ntop-1 ") == 1 and done.stdout.count("left out") == 1


# ---- figures ----


def test_figures_are_counted_by_hand():
    classes = ["a", "b", "c", "d", "e", "f"]
    nearest = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [1, 2, 3, 4, 5], [2, 5, 0, 1, 3], [0, 1, 2, 3, 4]])
    figures, matrix = measure(nearest, torch.tensor([0, 0, 0, 2, 5]), classes)
    assert (figures["top1"], figures["top5"]) == (40.0, 60.0)
    assert figures["mean_per_class"] == 44.44  # of a third, one and none
    assert figures["per_class"]["a"] == {"top1": 33.33, "top5": 66.67, "pictures": 3}
    assert figures["per_class"]["b"] == {"top1": None, "top5": None, "pictures": 0}
    assert matrix[0].tolist() == [1, 2, 0, 0, 0, 0] and matrix[5, 0] == 1


def test_of_five_classes_there_is_no_top_5():
    figures, _ = measure(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 0]), ["a", "b"])
    assert figures["top5"] is None and figures["per_class"]["a"]["top5"] is None and figures["top1"] == 50.0


# ---- tables and templates ----


def test_the_table_names_every_class_of_four_data_sets_and_they_agree():
    tables = published_names()
    assert {name: len(table) for name, table in tables.items()} == {
        "AID": 30,
        "UCM": 21,
        "NWPU-RESISC45": 45,
        "RSICD": 31,
    }
    for table in tables.values():
        words, _ = class_words(list(table), None)
        assert words == list(table.values()) and len(set(words)) == len(words)


def test_classes_are_found_without_regard_to_case_and_separators():
    assert class_words(["SPARSERESIDENTIAL", "Sea Ice", "railwaystation"], None)[0] == [
        "sparse residential area",
        "sea ice",
        "railway station",
    ]
    assert class_words(["ferry_terminal", "Dry-Dock"], "as_given") == (
        ["ferry terminal", "Dry Dock"],
        "the classes' own names",
    )


def test_a_table_of_ones_own_is_taken_alone(tmp_path):
    file = tmp_path / "names.json"
    file.write_text('{"Quay": " a quay ", "dry_dock": "a dry dock", "Dry Dock": "a dock without water"}')
    assert class_words(["quay", "Dry Dock", "dry_dock"], str(file))[0] == [
        "a quay",
        "a dock without water",
        "a dry dock",
    ]
    with pytest.raises(InputError, match=r"1 of 2 classes have no words in .*names.json: airport; give --names"):
        class_words(["quay", "airport"], str(file))


def test_templates_are_filled_class_by_class():
    assert prompts(["a lake", "a {sea}"], ["on {}.", "{}"]) == ["on a lake.", "a lake", "on a {sea}.", "a {sea}"]
    assert len(read_templates(ROOT / "zeroshot/templates.txt")) >= 10


# ---- mistakes ----


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no template; write one a line, as 'an aerial photograph of {}.'"),
        ("# all {} of it\n\n", "holds no template"),
        ("a photo of {}.\nan aerial photo.\n", "line 2: 'an aerial photo.' has no {}; write it once"),
        ("{} and {}\n", "line 1: '{} and {}' has more than one {}"),
    ],
)
def test_a_template_without_a_place_for_the_name_is_one_line(tmp_path, content, said):
    file = tmp_path / "templates.txt"
    file.write_text(content)
    with pytest.raises(InputError) as raised:
        read_templates(file)
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "with at least one class"),
        ("[1]", "must be JSON of"),
        ('{"a": 3}', "the words of class 'a' are 3; give a text"),
        ('{"a": " "}', "the words of class 'a' are ' '; give a text"),
        ('{"a": "x"', "is not JSON of class names, or is cut short"),
        ('{"a": "x", "b": "x"}', "classes a and b are both 'x' in"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(tmp_path, content, said):
    file = tmp_path / "names.json"
    file.write_text(content)
    with pytest.raises(InputError) as raised:
        class_words(["a", "b"], str(file))
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_folders_that_no_table_names_and_splits_taken_for_classes_are_one_line(scenes, tmp_path):
    with pytest.raises(
        InputError, match=r"2 of 3 classes have no words in zeroshot/class_names.json: quay, dock; .*as_g"
    ):
        class_words(["quay", "Airport", "dock"], None)
    shutil.copytree(scenes, tmp_path / "AID/test")
    with pytest.raises(InputError, match=r"hold no picture .*it holds folders: is --images .*/AID/test meant\?"):
        read_pictures(tmp_path / "AID", [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "is not a folder: it must hold one folder of pictures a class"),
        (lambda folder: [shutil.rmtree(folder / name) for name in CLASSES], "holds no class folders"),
        (lambda folder: (folder / "Pond").mkdir(), "1 of 8 class folders hold no picture"),
        (lambda folder: [shutil.rmtree(folder / name) for name in CLASSES[1:]], "all pictures are of class 'Airport'"),
        (
            lambda folder: (folder / "quay").mkdir() or shutil.copy(folder / "Beach/0.png", folder / "quay"),
            "quay; give",
        ),
        (lambda folder: (folder / "Beach/0.png").write_text("none"), "cannot read the picture"),
    ],
    ids=["none", "no classes", "empty class", "one class", "unnamed class", "broken picture"],
)
def test_pictures_that_cannot_be_classified_are_one_line_and_leave_no_result(scenes, tiny, tmp_path, change, said):
    shutil.copytree(scenes, tmp_path / "scenes")
    change(tmp_path / "scenes")
    with pytest.raises(InputError) as raised:
        run(tmp_path / "scenes", tmp_path / "out", "--checkpoint", tiny)
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "out/result.json").exists()


def test_a_picture_that_is_cut_short_is_one_line(scenes, tiny, tmp_path):
    shutil.copytree(scenes, tmp_path / "scenes")
    file = tmp_path / "scenes/Beach/1.png"
    random = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(random).save(file)
    file.write_bytes(file.read_bytes()[:3000])  # its header is whole
    with pytest.raises(InputError, match=r"cannot read the picture .*Beach/1\.png"):
        run(tmp_path / "scenes", tmp_path / "out", "--checkpoint", tiny)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([{"image": "Beach/0.png", "caption": ["a"]}], "its records have no label"),
        ([{"image": "Beach/0.png", "caption": ["a"], "label": 3}], "all pictures are of class '3'"),
        ([{"image": "Beach/9.png", "caption": ["a"]}], "is not in image_root"),
    ],
)
def test_annotation_files_without_classes_are_one_line(scenes, tmp_path, records, said):
    file = tmp_path / "val.json"
    file.write_text(json.dumps(records))
    with pytest.raises(InputError, match=said):
        read_pictures(scenes, [str(file)])


def test_a_picture_of_two_classes_is_one_line(scenes, tmp_path):
    for name in ("one", "two"):
        record = {"image": "Beach/0.png", "caption": ["a"], "label": 0, "label_name": name}
        (tmp_path / f"{name}.json").write_text(json.dumps([record]))
    with pytest.raises(InputError, match=r"Beach/0\.png is of class 'two', and of 'one' in another record"):
        read_pictures(scenes, [str(tmp_path / f"{name}.json") for name in ("one", "two")])


def test_names_that_the_vocabulary_does_not_know_are_one_line(tiny):
    with pytest.raises(InputError, match="knows no word of 1 captions, '湖泊' of the classes' captions first"):
        class_embeddings(load(tiny, device="cpu"), ["湖泊"], ["{}"])


def test_a_mistake_of_the_command_line_is_told_at_once():
    done = subprocess.run([sys.executable, "ZeroShot.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: the following arguments are required: --images")
    assert done.stderr.count("\n") == 1
