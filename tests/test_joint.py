"""A joint set of prepared parts: pictures and scenes numbered together, and nothing trained on that is held out."""

import json
import shutil
import subprocess
import sys

import pytest
from PIL import Image

import Prepare
from dataset.annotations import read_evaluation, read_train
from dataset.releases import joint
from dataset.releases.published_releases import UCM_CLASSES
from dataset.releases.scene_names import common_scene
from tests.small_releases import entry, make_release
from utils.errors import InputError
from utils.output import lock, unlock

RSICD = {"beach_1.jpg": "train", "bareland_2.jpg": "train", "port_3.jpg": "train", "oddity_7.jpg": "train"}
RSICD |= {"beach_8.jpg": "val", "port_9.jpg": "test"}
RSITMD = {"beach_1.tif": "train", "bareland_4.tif": "train", "volcano_5.tif": "train"}
RSITMD |= {"beach_6.tif": "val", "park_7.tif": "test"}
SYDNEY = {"1.tif": "train", "2.tif": "val", "3.tif": "test"}  # which has no labels


@pytest.fixture
def releases(tmp_path):
    for dataset, names in {"rsicd": RSICD, "rsitmd": RSITMD, "sydney": SYDNEY}.items():
        make_release(tmp_path / "releases" / dataset, dataset, [entry(name, split) for name, split in names.items()])
    return tmp_path / "releases"


@pytest.fixture
def prepare(releases, tmp_path):
    """Prepare a release into a part; the part's folder."""

    def prepared(dataset, *more):
        given = ["--dataset", dataset, "--release", str(releases / dataset), "--output_dir", str(tmp_path / dataset)]
        Prepare.main([*given, *more])
        return tmp_path / dataset

    return prepared


def join(tmp_path, *parts):
    """The joint folder's report and its three annotation files."""
    folder = tmp_path / "joint"
    Prepare.main(["--dataset", "joint", "--parts", *map(str, parts), "--output_dir", str(folder)])
    files = {split: json.loads((folder / f"joint_{split}.json").read_text()) for split in ("train", "val", "test")}
    return json.loads((folder / "report.json").read_text()), files


def copy_picture(releases, source, target):
    """Make one release's picture a copy of another's, though of another file format."""
    Image.open(releases / source).save(releases / target)


def refused(tmp_path, *parts):
    with pytest.raises(InputError) as error:
        join(tmp_path, *parts)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pictures_and_scenes_of_the_parts_are_numbered_together(prepare, tmp_path, releases, capsys):
    _, files = join(tmp_path, prepare("rsicd"), prepare("rsitmd"))
    id_of = {record["image"]: record["image_id"] for record in files["train"]}
    assert len(id_of) == 7 and sorted(id_of.values()) == list(range(7))
    assert len(files["train"]) == 5 * 7
    labels = {(record["label_name"], record["label"]) for split in files.values() for record in split}
    assert len(labels) == len(dict(labels)) == len({label for _, label in labels}) == 6
    scenes = {record["image"]: record["label_name"] for record in files["train"]}
    assert scenes["rsicd/images/bareland_2.jpg"] == scenes["rsitmd/images/bareland_4.tif"] == "bare land"
    assert scenes["rsitmd/images/volcano_5.tif"] == "volcano"
    printed = capsys.readouterr().out
    assert "1 scene names are not in the table and kept: volcano" in printed
    assert "published split of rsitmd: 3,435/856/452" in printed
    assert "counts published for a joint set: none known here" in printed


def test_what_is_written_is_what_training_and_evaluation_read(prepare, tmp_path, releases):
    join(tmp_path, prepare("rsicd"), prepare("rsitmd"))
    folder = tmp_path / "joint"
    assert len(read_train([folder / "joint_train.json"], releases, labels_required=True)) == 35
    for split in ("val", "test"):
        found = read_evaluation(folder / f"joint_{split}.json", releases)
        assert len(found.images) == 2 and found.labels is not None


def test_a_training_picture_that_another_part_tests_is_left_out_and_listed(prepare, tmp_path, releases):
    copy_picture(releases, "rsicd/images/port_9.jpg", "rsitmd/images/volcano_5.tif")
    copy_picture(releases, "rsitmd/images/beach_6.tif", "rsicd/images/beach_1.jpg")
    report, files = join(tmp_path, prepare("rsicd"), prepare("rsitmd"))
    found = [(item["image"], item["looks_as"], item["of_split"]) for item in report["left_out"]["items"]]
    assert found == [
        ("rsicd/images/beach_1.jpg", "rsitmd/images/beach_6.tif", "val"),
        ("rsitmd/images/volcano_5.tif", "rsicd/images/port_9.jpg", "test"),
    ]
    left = {record["image"] for record in files["train"]}
    assert len(left) == 5 and not left & {image for image, _, _ in found}
    assert report["counts"]["train"] == {"pictures": 5, "captions": 25, "labels": 4}
    hashes = {split: set(pictures.values()) for split, pictures in report["pictures"].items()}
    assert not hashes["train"] & (hashes["val"] | hashes["test"])


def test_a_leak_within_a_part_and_a_turned_copy_are_left_out_too(prepare, tmp_path, releases):
    copy = Image.open(releases / "rsicd/images/port_9.jpg").transpose(Image.Transpose.ROTATE_90)
    copy.save(releases / "rsicd/images/port_3.jpg")
    report, _ = join(tmp_path, prepare("rsicd"), prepare("rsitmd"))
    (item,) = report["left_out"]["items"]
    assert (item["image"], item["looks_as"]) == ("rsicd/images/port_3.jpg", "rsicd/images/port_9.jpg")


def test_a_picture_that_one_part_validates_and_another_tests_is_tested_on_alone(prepare, tmp_path, releases):
    names = {"beach_11.tif": "train", "beach_12.tif": "val", "beach_13.tif": "val", "park_14.tif": "test"}
    shutil.rmtree(releases / "rsitmd")
    make_release(releases / "rsitmd", "rsitmd", [entry(name, split) for name, split in names.items()])
    copy_picture(releases, "rsicd/images/port_9.jpg", "rsitmd/images/beach_12.tif")
    copy_picture(releases, "rsicd/images/beach_8.jpg", "rsitmd/images/beach_13.tif")
    report, files = join(tmp_path, prepare("rsicd"), prepare("rsitmd"))
    assert [record["image"] for record in files["val"]] == ["rsicd/images/beach_8.jpg"]
    assert {item["image"]: item["of_split"] for item in report["left_out"]["items"]} == {
        "rsitmd/images/beach_12.tif": "test",
        "rsitmd/images/beach_13.tif": "val",
    }


def test_training_pictures_that_two_parts_share_are_kept_and_counted(prepare, tmp_path, releases, capsys):
    # The hash of a copy as TIFF is the same
    copy_picture(releases, "rsicd/images/beach_1.jpg", "rsitmd/images/beach_1.tif")
    report, files = join(tmp_path, prepare("rsicd"), prepare("rsitmd"))
    assert report["trained_in_two_parts"] == 1 and len({record["image"] for record in files["train"]}) == 7
    assert "kept: 1 training pictures that two parts share" in capsys.readouterr().out


def test_the_same_parts_give_the_same_bytes_and_the_parts_stay(prepare, tmp_path):
    parts = [prepare("rsicd"), prepare("rsitmd")]
    before = {file: file.read_bytes() for part in parts for file in part.iterdir()}
    join(tmp_path, *parts)
    first = {file.name: file.read_bytes() for file in (tmp_path / "joint").iterdir()}
    join(tmp_path, *parts)
    assert {file.name: file.read_bytes() for file in (tmp_path / "joint").iterdir()} == first
    assert set(first) == {"joint_train.json", "joint_val.json", "joint_test.json", "report.json"}
    assert {file: file.read_bytes() for part in parts for file in part.iterdir()} == before


def test_an_interrupted_run_leaves_nothing_half_written(prepare, tmp_path, monkeypatch):
    parts = [prepare("rsicd"), prepare("rsitmd")]

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(joint, "put_in_place", interrupted)
    with pytest.raises(KeyboardInterrupt):
        join(tmp_path, *parts)
    assert list((tmp_path / "joint").iterdir()) == []


def test_scenes_are_merged_whatever_their_case_and_separators():
    assert common_scene("BareLand") == common_scene("bareland") == common_scene("bare_land") == "bare land"
    assert common_scene("harbor") == common_scene("Port") == "port"
    assert common_scene("00215.jpg") is None


def test_every_scene_of_ucm_is_in_the_table():
    assert [name for name in UCM_CLASSES if common_scene(name) is None] == []


# Bad input


def test_a_folder_that_is_no_part_is_named(prepare, tmp_path):
    assert "no prepared part" in refused(tmp_path, prepare("rsicd"), tmp_path / "nowhere")


def test_the_same_part_twice_is_named(prepare, tmp_path, releases):
    rsicd = prepare("rsicd")
    assert "twice" in refused(tmp_path, rsicd, tmp_path / "x" / ".." / "rsicd")
    shutil.copytree(rsicd, tmp_path / "copy")
    assert "the same part twice" in refused(tmp_path, rsicd, tmp_path / "copy")


def test_missing_pictures_are_counted_before_anything_is_read(prepare, tmp_path, releases):
    parts = [prepare("rsicd"), prepare("rsitmd")]
    (releases / "rsitmd/images/volcano_5.tif").unlink()
    message = refused(tmp_path, *parts)
    assert "1 of its 5 pictures" in message and "volcano_5.tif" in message
    assert not (tmp_path / "joint").exists()


def test_a_part_without_scene_names_does_not_go_with_one_that_has_them(prepare, tmp_path):
    assert f"{tmp_path / 'sydney'} has no scene names" in refused(tmp_path, prepare("rsicd"), prepare("sydney"))


def test_a_part_that_was_edited_is_prepared_again(prepare, tmp_path):
    parts = [prepare("rsicd"), prepare("rsitmd")]
    (parts[1] / "rsitmd_val.json").write_text("[]")
    assert "rsitmd_val.json is not as Prepare.py left it" in refused(tmp_path, *parts)


def test_parts_that_are_read_by_different_rules_do_not_go_together(prepare, tmp_path):
    parts = [prepare("rsicd"), prepare("rsitmd", "--deep_pictures", "minmax")]
    assert "different rules" in refused(tmp_path, *parts)


def test_an_output_folder_in_use_is_left_alone(prepare, tmp_path):
    parts = [prepare("rsicd"), prepare("rsitmd")]
    for part in (tmp_path / "rsicd", prepare("sydney")):
        given = ["--dataset", "joint", "--parts", *map(str, parts), "--output_dir", str(part)]
        with pytest.raises(InputError, match="choose another"):
            Prepare.main(given)


def test_a_folder_that_another_run_writes_to_is_left_alone(prepare, tmp_path):
    parts = [prepare("rsicd"), prepare("rsitmd")]
    (tmp_path / "joint").mkdir()
    lock(tmp_path / "joint")
    try:
        arguments = ["--dataset", "joint", "--parts", *map(str, parts), "--output_dir", str(tmp_path / "joint")]
        done = subprocess.run([sys.executable, Prepare.__file__, *arguments], capture_output=True, text=True)
    finally:
        unlock(tmp_path / "joint")
    assert done.returncode == 2 and "is in use by another run" in done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--parts", "a"], "two prepared folders or more"),
        (["--parts", "a", "b", "--release", "c"], "leave --release out"),
        (["--parts", "a", "b", "--seed", "3"], "leave --seed out"),
    ],
)
def test_arguments_that_do_not_go_with_a_joint_set(given, said):
    with pytest.raises(InputError, match=said):
        Prepare.main(["--dataset", "joint", "--output_dir", "out", *given])


def test_parts_are_for_a_joint_set_alone():
    with pytest.raises(InputError, match="--parts is for --dataset joint"):
        Prepare.main(["--dataset", "rsicd", "--output_dir", "out", "--parts", "a", "b"])
    with pytest.raises(InputError, match="prepared from --release"):
        Prepare.main(["--dataset", "rsicd", "--output_dir", "out"])
