"""Published releases -> annotation files."""

import json
import os
import shlex
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

import Prepare
from dataset.annotations import read_evaluation, read_train
from utils.config import config_from_file
from utils.errors import InputError

RSICD_MINI = Path(__file__).parents[2] / "shared" / "data" / "rsicd_mini"

PICTURES = [  # file name, split, class, captions
    ("beach_1.jpg", "train", "Beach", ["A beach .", "Sand and sea ."]),
    ("airport_2.jpg", "val", "Airport", ["A runway ."]),
    ("00003.jpg", "train", "Airport", ["Planes .", " .", "Two planes’ wings ."]),
    ("pond_4.jpg", "test", "Pond", ["Water .", "A pond ."]),
    ("beach_5.jpg", "test", "Beach", ["Waves ."]),
]


@pytest.fixture
def release(tmp_path):
    folder = tmp_path / "release"
    (folder / "images").mkdir(parents=True)
    (folder / "txtclasses_rsicd").mkdir()
    for name, _, scene, _ in PICTURES:
        Image.new("RGB", (8, 8)).save(folder / "images" / name)
        with (folder / "txtclasses_rsicd" / f"{scene}.txt").open("a") as file:
            file.write(f"{name}\r\nnot_in_the_release_{name}\r\n")
    save(folder, [entry(*picture) for picture in PICTURES])
    return folder


def entry(name, split, _, captions):
    sentences = [{"tokens": raw.split(), "raw": raw, "imgid": 0, "sentid": 0} for raw in captions]
    return {"filename": name, "imgid": 0, "sentences": sentences, "split": split, "sentids": [0]}


def save(folder, images):
    (folder / "dataset_rsicd.json").write_text(json.dumps({"images": images, "dataset": "rsicd"}))


def prepare(release, output_dir, *more):
    return Prepare.main(["--dataset", "rsicd", "--release", str(release), "--output_dir", str(output_dir), *more])


def load(output_dir, split):
    return json.loads((output_dir / f"rsicd_{split}.json").read_text())


def told(release, output_dir, *more):
    """The one line that says why nothing was written."""
    with pytest.raises(InputError) as error:
        prepare(release, output_dir, *more)
    assert not output_dir.exists() or not os.listdir(output_dir)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_release_becomes_the_three_annotation_files(release, tmp_path):
    assert prepare(release, tmp_path / "out") == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["rsicd_test.json", "rsicd_train.json", "rsicd_val.json"]
    beach, bare = {"label": 1, "label_name": "beach"}, {"label": 0, "label_name": "00003"}
    assert load(tmp_path / "out", "train") == [
        {"caption": "A beach .", "image": "beach_1.jpg", "image_id": 0, **beach},
        {"caption": "Sand and sea .", "image": "beach_1.jpg", "image_id": 0, **beach},
        {"caption": "Planes .", "image": "00003.jpg", "image_id": 1, **bare},
        {"caption": "Two planes’ wings .", "image": "00003.jpg", "image_id": 1, **bare},
    ]
    airport, pond = {"label": 2, "label_name": "airport"}, {"label": 3, "label_name": "pond"}
    assert load(tmp_path / "out", "val") == [{"image": "airport_2.jpg", "caption": ["A runway ."], **airport}]
    assert load(tmp_path / "out", "test") == [
        {"image": "pond_4.jpg", "caption": ["Water .", "A pond ."], **pond},
        {"image": "beach_5.jpg", "caption": ["Waves ."], **beach},
    ]


def test_labels_may_be_the_scene_classes(release, tmp_path):
    prepare(release, tmp_path / "out", "--labels", "scene")
    labels = {
        record["image"]: (record["label"], record["label_name"])
        for split in ("train", "val", "test")
        for record in load(tmp_path / "out", split)
    }
    assert labels == {
        "beach_1.jpg": (1, "Beach"),
        "00003.jpg": (0, "Airport"),
        "airport_2.jpg": (0, "Airport"),
        "pond_4.jpg": (2, "Pond"),
        "beach_5.jpg": (1, "Beach"),
    }


def test_the_written_files_are_read_back(release, tmp_path):
    prepare(release, tmp_path / "out")
    images = release / "images"
    train = read_train([tmp_path / "out" / "rsicd_train.json"], images, labels_required=True)
    assert [(record.caption, record.image_id, record.label) for record in train] == [
        ("a beach", 0, 1),
        ("sand and sea", 0, 1),
        ("planes", 1, 0),
        ("two planes’ wings", 1, 0),
    ]
    test = read_evaluation(tmp_path / "out" / "rsicd_test.json", images)
    assert (test.own_image_of_text, test.labels) == ([0, 0, 1], [3, 1])


def test_it_prints_what_it_wrote_and_left_out(release, tmp_path, capsys):
    prepare(release, tmp_path / "out")
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'out' / 'rsicd_train.json'}: 2 pictures, 4 captions, 2 labels" in printed
    assert f"{tmp_path / 'out' / 'rsicd_test.json'}: 2 pictures, 3 captions, 2 labels" in printed
    assert "left out: 1 captions without a word" in printed


def test_the_printed_command_trains_on_the_written_files(release, tmp_path, capsys, monkeypatch):
    odd = tmp_path / "it's: a, #release [1]"
    release.rename(odd)
    monkeypatch.chdir(tmp_path)
    prepare(odd.name, "out put")  # relative paths: the command names whole ones
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[:4] == ["python", "run.py", "--task", "itr_rsicd_lite"]
    assert command[4::2] == ["--override"] * 4
    monkeypatch.chdir(Path(__file__).parents[1])  # the config names its two size files from there
    config = config_from_file("configs/Retrieval_rsicd_lite.yaml", command[5::2])
    output = tmp_path / "out put"
    assert Path(config.image_root) == odd / "images"
    assert [Path(file) for file in config.train_file] == [output / "rsicd_train.json"]
    assert Path(config.val_file) == output / "rsicd_val.json"
    assert Path(config.test_file) == output / "rsicd_test.json"


def test_the_same_release_gives_the_same_bytes(release, tmp_path):
    prepare(release, tmp_path / "1")
    prepare(release, tmp_path / "2")
    for name in os.listdir(tmp_path / "1"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_a_failed_write_leaves_the_old_files(release, tmp_path, monkeypatch):
    prepare(release, tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    write_text = Path.write_text

    def full_disk(path, *arguments, **options):
        if "test" in path.name:
            raise OSError(28, "No space left on device", str(path))
        return write_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(InputError, match="No space left on device"):
        prepare(release, tmp_path / "out", "--labels", "scene")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


def test_an_output_dir_that_cannot_be_made_is_named(release, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*file"):
        prepare(release, tmp_path / "file")


def test_pictures_in_the_folder_of_the_published_name_are_found(release, tmp_path, capsys):
    (release / "images").rename(release / "RSICD_images")
    prepare(release, tmp_path / "out")
    assert f"image_root={release / 'RSICD_images'}" in capsys.readouterr().out


def test_a_folder_that_is_not_the_release_is_named(release, tmp_path):
    output = tmp_path / "out"
    assert "no folder of pictures (images or RSICD_images)" in told(tmp_path, output)
    (release / "dataset_rsicd.json").unlink()
    assert f"cannot read {release / 'dataset_rsicd.json'}" in told(release, output)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"images": [{"filename": "beach', "not JSON, or is cut short"),
        (b"\xff", "not UTF-8"),
        (b'[{"caption": "x"}]', 'no list "images"'),
        (b'{"images": [], "annotations": []}', 'no list "images"'),
        (b'{"images": [{"id": 1, "file_name": "a.jpg"}]}', "filename None is not the name of a file"),
        (b'{"images": ["a.jpg"]}', "image 1: is not a JSON object"),
    ],
)
def test_another_file_in_the_place_of_the_captions_is_told(release, tmp_path, content, problem):
    (release / "dataset_rsicd.json").write_bytes(content)
    assert problem in told(release, tmp_path / "out")


@pytest.mark.parametrize(
    ("picture", "problem"),
    [
        (("beach_9.jpg", "train", "Beach", ["A beach ."]), "'beach_9.jpg' is not in"),
        (("../beach_1.jpg", "train", "Beach", ["A beach ."]), "is not the name of a file"),
        (("beach_1.jpg", "train", "Beach", ["A beach ."]), "is in the release twice"),
        (("beach_6.jpg", "restval", "Beach", ["A beach ."]), "has the split 'restval'"),
        (("beach_6.jpg", "train", "Beach", [" .", "..."]), "has no caption with a word in it"),
        (("beach_6.jpg", "train", "Beach", []), "has no caption with a word in it"),
    ],
)
def test_a_wrong_picture_is_told(release, tmp_path, picture, problem):
    Image.new("RGB", (8, 8)).save(release / "images" / "beach_6.jpg")
    save(release, [entry(*p) for p in [*PICTURES, picture]])
    message = told(release, tmp_path / "out")
    assert f"{release / 'dataset_rsicd.json'}: 1 problem: image 6: " in message and problem in message


def test_all_missing_pictures_are_counted(release, tmp_path):
    for picture in (release / "images").iterdir():
        picture.unlink()
    assert "5 problems: image 1: 'beach_1.jpg'" in told(release, tmp_path / "out")


def test_a_release_without_one_of_the_splits_is_told(release, tmp_path):
    save(release, [entry(*picture) for picture in PICTURES if picture[1] != "val"])
    assert "no picture of the split val" in told(release, tmp_path / "out")


def test_a_picture_in_no_class_or_in_two_is_told(release, tmp_path):
    classes = release / "txtclasses_rsicd"
    (classes / "Pond.txt").write_text("beach_1.jpg\n")
    message = told(release, tmp_path / "out", "--labels", "scene")
    assert message.startswith(f"{classes}: 2 problems: ")
    assert "'beach_1.jpg' is in the classes Beach and Pond" in message and "'pond_4.jpg' is in no class" in message
    prepare(release, tmp_path / "out")  # the file names do not need the lists


def test_a_release_without_class_lists_is_told_when_they_are_needed(release, tmp_path):
    for file in (release / "txtclasses_rsicd").iterdir():
        file.unlink()
    assert "holds no class lists" in told(release, tmp_path / "out", "--labels", "scene")


def test_labels_the_release_does_not_have_are_told(release, tmp_path):
    assert "this release has name and scene" in told(release, tmp_path / "out", "--labels", "colour")


def test_real_pictures_of_rsicd_are_prepared(tmp_path, capsys):
    if not RSICD_MINI.exists():
        pytest.skip("RSICD is not here")
    prepare(RSICD_MINI, tmp_path / "name")
    assert "2002 pictures, 10007 captions, 207 labels" in capsys.readouterr().out
    prepare(RSICD_MINI, tmp_path / "scene", "--labels", "scene")
    counts = Counter()
    for split in ("val", "test"):
        evaluation = read_evaluation(tmp_path / "scene" / f"rsicd_{split}.json", RSICD_MINI / "images")
        counts[split] = len(evaluation.images)
        assert len(evaluation.captions) == 5 * len(evaluation.images)
    records = read_train([tmp_path / "scene" / "rsicd_train.json"], RSICD_MINI / "images", labels_required=True)
    counts["train"] = len({record.image_id for record in records})
    assert counts == {"train": 2002, "val": 300, "test": 499}
    assert {record.label for record in records} == set(range(31))
