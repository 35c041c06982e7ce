"""Published releases -> annotation files."""

import json
import os
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

import Prepare
from dataset.annotations import read_evaluation, read_train
from dataset.releases import published_splits
from dataset.releases.picture_check import check_picture
from dataset.releases.published_splits import PublishedSplit
from dataset.shards import read_shards
from tests.small_releases import entry, make_release, picture
from utils.config import config_from_file
from utils.errors import InputError

RSICD_MINI = Path(__file__).parents[2] / "shared" / "data" / "rsicd_mini"
WRITTEN = ["report.html", "report.json", "rsicd_test.json", "rsicd_train.json", "rsicd_val.json"]

PICTURES = [  # file name, split, class, captions
    ("beach_1.jpg", "train", "Beach", ["A beach .", "Sand and sea ."]),
    ("airport_2.jpg", "val", "Airport", ["A runway ."]),
    ("00003.jpg", "train", "Airport", ["Planes .", " .", "Two planes’ wings ."]),
    ("pond_4.jpg", "test", "Pond", ["Water .", "A pond ."]),
    ("beach_5.jpg", "test", "Beach", ["Waves ."]),
]


@pytest.fixture
def release(tmp_path):
    folder = make_release(tmp_path / "release", "rsicd", [entry(name, split, raw) for name, split, _, raw in PICTURES])
    (folder / "txtclasses_rsicd").mkdir()
    for name, _, scene, _ in PICTURES:
        with (folder / "txtclasses_rsicd" / f"{scene}.txt").open("a") as file:
            file.write(f"{name}\r\nnot_in_the_release_{name}\r\n")
    return folder


def save(folder, images):
    (folder / "dataset_rsicd.json").write_text(json.dumps({"images": images, "dataset": "rsicd"}))


def prepare(release, output_dir, *more, dataset="rsicd"):
    return Prepare.main(["--dataset", dataset, "--release", str(release), "--output_dir", str(output_dir), *more])


def load(output_dir, split, dataset="rsicd"):
    return json.loads((output_dir / f"{dataset}_{split}.json").read_text())


def labels(output_dir, dataset="rsicd"):
    records = [record for split in ("train", "val", "test") for record in load(output_dir, split, dataset)]
    return {record["image"]: (record["label"], record["label_name"]) for record in records}


def told(release, output_dir, *more, dataset="rsicd"):
    """The one line that says why nothing was written."""
    with pytest.raises(InputError) as error:
        prepare(release, output_dir, *more, dataset=dataset)
    assert not output_dir.exists() or not os.listdir(output_dir)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_release_becomes_the_three_annotation_files(release, tmp_path):
    assert prepare(release, tmp_path / "out") == 0
    assert sorted(os.listdir(tmp_path / "out")) == WRITTEN
    beach, bare = {"label": 1, "label_name": "beach"}, {"label": 0, "label_name": "00003"}
    assert load(tmp_path / "out", "train") == [
        {"caption": "A beach .", "image": "beach_1.jpg", "image_id": 0, **beach},
        {"caption": "Sand and sea .", "image": "beach_1.jpg", "image_id": 0, **beach},
        {"caption": "Planes .", "image": "00003.jpg", "image_id": 1, **bare},
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
    assert labels(tmp_path / "out") == {
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
        ("planes", 1, 0),
        ("two planes’ wings", 1, 0),
    ]
    test = read_evaluation(tmp_path / "out" / "rsicd_test.json", images)
    assert (test.own_image_of_text, test.labels) == ([0, 0, 1], [3, 1])


def test_it_prints_what_it_wrote_and_what_is_wrong(release, tmp_path, capsys):
    (release / "images" / "airport_2.jpg").rename(release / "images" / "Airport_2.JPG")
    prepare(release, tmp_path / "out")
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'out' / 'rsicd_train.json'}: 2 pictures, 5 captions, 2 labels" in printed
    assert f"{tmp_path / 'out' / 'rsicd_test.json'}: 2 pictures, 3 captions, 2 labels" in printed
    assert "Captions empty after cleaning, or no valid text: 1 ('00003.jpg' first)" in printed
    assert "File names spelled otherwise on the disk: 1 ('Airport_2.JPG' first)" in printed
    assert "near-duplicate" not in printed


def test_with_shards_the_training_pictures_are_written_as_tar_shards_too(release, tmp_path, capsys):
    out = tmp_path / "out"
    prepare(release, out, "--shards")
    assert sorted(os.listdir(out / "shards")) == ["rsicd_train-000000.tar", "rsicd_train.json"]
    pattern = str(out / "shards" / "rsicd_train-{000000..000000}.tar")
    assert pattern in capsys.readouterr().out.splitlines()[-1]
    assert [(shard.pictures, shard.captions) for shard in read_shards([pattern], labels_required=True)] == [(2, 5)]
    prepare(release, out, "--shards")
    assert "nothing to do" in capsys.readouterr().out
    (out / "shards" / "rsicd_train-000000.tar").unlink()
    prepare(release, out, "--shards")  # is not done any more
    assert "nothing to do" not in capsys.readouterr().out
    assert len(read_shards([pattern], labels_required=True)) == 1


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


@pytest.mark.parametrize("option", ["--release", "--output_dir", "--check_against"])
def test_a_name_that_an_unset_variable_left_empty_is_not_the_current_folder(release, tmp_path, option):
    given = {"--dataset": "rsicd", "--release": str(release), "--output_dir": str(tmp_path / "out")} | {option: ""}
    with pytest.raises(InputError, match=f"{option}: the name is empty"):
        Prepare.main([part for pair in given.items() for part in pair])


def test_the_same_release_gives_the_same_bytes(release, tmp_path):
    prepare(release, tmp_path / "1")
    prepare(release, tmp_path / "2")
    for name in os.listdir(tmp_path / "1"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_a_second_run_finds_its_output_done(release, tmp_path, capsys):
    output = tmp_path / "out"
    prepare(release, output)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in output.iterdir()}
    capsys.readouterr()
    assert prepare(release, output) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{output} holds this release already, prepared with the same arguments: nothing to do"
    ]
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in output.iterdir()} == before


@pytest.mark.parametrize("change", ["picture", "captions", "output", "report", "arguments", "classes"])
def test_a_second_run_does_what_a_change_asks_for(release, tmp_path, capsys, change):
    output, more = tmp_path / "out", ["--labels", "scene"]
    prepare(release, output, *more)
    if change == "picture":
        picture("another").save(release / "images" / "beach_5.jpg")
    elif change == "captions":
        save(release, [entry(name, split, [*raw, "More ."]) for name, split, _, raw in PICTURES])
    elif change == "output":
        (output / "rsicd_val.json").write_text("[]")
    elif change == "report":
        (output / "report.html").unlink()
    elif change == "classes":
        (release / "txtclasses_rsicd" / "Pond.txt").rename(release / "txtclasses_rsicd" / "Lake.txt")
    else:
        more = []
    capsys.readouterr()
    prepare(release, output, *more)
    assert "train on them with" in capsys.readouterr().out
    shutil.copytree(output, tmp_path / "again")
    shutil.rmtree(output)
    prepare(release, output, *more)
    for file in output.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


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


def files_of(output_dir):
    return {file: file.read_bytes() for file in output_dir.rglob("*") if file.is_file()}


def no_work(monkeypatch):
    monkeypatch.setattr(Prepare, "check_pictures", lambda *_: pytest.fail("the pictures were checked first"))


@pytest.mark.parametrize("cause", ["shard", "text"])
def test_a_failed_write_leaves_the_old_shards_too(release, tmp_path, monkeypatch, cause):
    out = tmp_path / "out"
    prepare(release, out, "--shards")
    before = files_of(out)

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    if cause == "shard":
        monkeypatch.setattr("webdataset.writer.TarWriter", full_disk)
    else:
        monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(InputError, match="No space left on device"):
        prepare(release, out, "--shards", "--labels", "scene")
    assert files_of(out) == before and sorted(os.listdir(out)) == sorted([*WRITTEN, "shards"])
    assert ".partial" not in os.listdir(out / "shards")


@pytest.mark.parametrize("name", ["rsicd_val.json", "report.json", "shards/rsicd_train.json"])
def test_a_file_name_taken_by_a_folder_is_told_before_the_work(release, tmp_path, monkeypatch, name):
    out = tmp_path / "out"
    (out / name).mkdir(parents=True)
    no_work(monkeypatch)
    with pytest.raises(InputError, match=rf"cannot write {out / name}: a folder has that name"):
        prepare(release, out, "--shards")
    assert files_of(out) == {}


def test_a_shard_whose_name_a_folder_takes_is_told_with_nothing_replaced(release, tmp_path):
    out = tmp_path / "out"
    prepare(release, out)
    (out / "shards" / "rsicd_train-000000.tar").mkdir(parents=True)
    before = files_of(out)
    with pytest.raises(InputError, match=r"rsicd_train-000000.tar: a folder has that name"):
        prepare(release, out, "--shards", "--labels", "scene")
    assert files_of(out) == before


def test_a_crash_between_two_files_never_looks_done(release, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    prepare(release, out)
    replace = os.replace

    def crash(source, target):
        if Path(target).name == "rsicd_val.json":
            raise OSError(5, "Input/output error", str(source))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(InputError, match=rf"cannot write {out / 'rsicd_val.json'}: Input/output error"):
            prepare(release, out, "--labels", "scene")
    assert sorted(os.listdir(out)) == [name for name in WRITTEN if name != "report.json"]
    capsys.readouterr()
    prepare(release, out)
    assert "nothing to do" not in capsys.readouterr().out


def test_shards_of_an_earlier_run_do_not_stay_beside_a_new_train_file(release, tmp_path, capsys):
    out = tmp_path / "out"
    prepare(release, out, "--shards")
    capsys.readouterr()
    prepare(release, out)
    assert f"removed the shards of an earlier run from {out / 'shards'}" in capsys.readouterr().out
    assert sorted(file.name for file in files_of(out)) == WRITTEN


def test_an_edited_index_of_shards_is_told_before_the_work(release, tmp_path, monkeypatch):
    out = tmp_path / "out"
    prepare(release, out, "--shards")
    index = out / "shards" / "rsicd_train.json"
    index.write_text(index.read_text().replace("rsicd_train-000000.tar", "mine.tar"))
    before = files_of(out)
    no_work(monkeypatch)
    with pytest.raises(InputError, match=rf"move {out / 'shards'} elsewhere, or choose another --output_dir"):
        prepare(release, out, "--shards")
    assert files_of(out) == before
    (out / "shards").rename(tmp_path / "elsewhere")  # as advised
    monkeypatch.undo()
    prepare(release, out, "--shards")


def test_pictures_that_shards_do_not_hold_are_told_before_the_work(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("a.jpe", "b.jpg", "c.jpg"):
        picture(name).save(folder / name)
    (folder / "table.csv").write_text("image,caption,split\na.jpe,x,train\nb.jpg,y,val\nc.jpg,z,test\n")
    no_work(monkeypatch)
    assert "1 problem: 'a.jpe'; leave --shards out" in told(folder, tmp_path / "out", "--shards", dataset="folder")


def test_a_picture_that_is_no_regular_file_is_told(release, tmp_path):
    (release / "images" / "beach_5.jpg").unlink()
    os.mkfifo(release / "images" / "beach_5.jpg")
    assert check_picture(release / "images" / "beach_5.jpg").unreadable == "is no regular file"
    assert "beach_5.jpg: it is no regular file" in told(release, tmp_path / "out")


def test_a_folder_that_may_not_be_entered_is_told(release, tmp_path, monkeypatch):
    is_dir = Path.is_dir

    def forbidden(path):
        if path == release / "images":
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", forbidden)
    assert told(release, tmp_path / "out") == f"cannot read {release / 'images'}: Permission denied"


def test_a_captions_file_that_is_no_regular_file_is_told(release, tmp_path):
    os.mkfifo(release / "dataset.csv")
    assert "it is no regular file" in told(release / "dataset.csv", tmp_path / "out", dataset="folder")


def test_an_output_dir_that_cannot_be_made_is_named(release, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--output_dir .*file cannot be written"):
        prepare(release, tmp_path / "file")


def test_pictures_in_the_folder_of_the_published_name_are_found(release, tmp_path, capsys):
    (release / "images").rename(release / "RSICD_images")
    prepare(release, tmp_path / "out")
    assert f"image_root={release / 'RSICD_images'}" in capsys.readouterr().out


def test_a_byte_order_mark_and_windows_line_ends_are_read(release, tmp_path):
    file = release / "dataset_rsicd.json"
    file.write_bytes(
        b"\xef\xbb\xbf" + json.dumps(json.loads(file.read_text()), indent=1).replace("\n", "\r\n").encode()
    )
    prepare(release, tmp_path / "out")
    assert load(tmp_path / "out", "val")[0]["caption"] == ["A runway ."]


# The other published forms


def test_rsitmd_has_tif_pictures_and_the_class_before_the_last_underscore(tmp_path, capsys):
    names = [("train", "airport_1.tif"), ("train", "beach_2.tif"), ("val", "airport_3.tif"), ("test", "beach_4.tif")]
    release = make_release(tmp_path / "rsitmd", "rsitmd", [entry(name, split) for split, name in names])
    prepare(release, tmp_path / "out", "--labels", "scene", dataset="rsitmd")
    assert labels(tmp_path / "out", "rsitmd") == {
        "airport_1.tif": (0, "airport"),
        "beach_2.tif": (1, "beach"),
        "airport_3.tif": (0, "airport"),
        "beach_4.tif": (1, "beach"),
    }
    assert len(load(tmp_path / "out", "train", "rsitmd")) == 10
    assert "--task itr_rsitmd " in capsys.readouterr().out


def test_ucm_has_its_classes_by_number(tmp_path):
    numbers = {"train": (1, 100, 101, 2001), "val": (2000,), "test": (2100,)}
    entries = [entry(f"{number}.tif", split) for split, of_split in numbers.items() for number in of_split]
    prepare(make_release(tmp_path / "ucm", "ucm", entries), tmp_path / "out", dataset="ucm")
    assert {name: label for name, (_, label) in labels(tmp_path / "out", "ucm").items()} == {
        "1.tif": "agricultural",
        "100.tif": "agricultural",
        "101.tif": "airplane",
        "2000.tif": "storagetanks",
        "2001.tif": "tenniscourt",
        "2100.tif": "tenniscourt",
    }


def test_sydney_has_no_labels_and_trains_without_them(tmp_path, capsys, monkeypatch):
    entries = [entry(f"{number}.tif", split) for number, split in enumerate(("train", "val", "test"), 1)]
    release = make_release(tmp_path / "sydney", "sydney", entries)
    assert "none: leave --labels out" in told(release, tmp_path / "out", "--labels", "name", dataset="sydney")
    prepare(release, tmp_path / "out", dataset="sydney")
    assert all(
        "label" not in entry for split in ("train", "val", "test") for entry in load(tmp_path / "out", split, "sydney")
    )
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    monkeypatch.chdir(Path(__file__).parents[1])
    assert config_from_file("configs/Retrieval_rsicd_lite.yaml", command[5::2]).use_affil_loss is False
    read_train([tmp_path / "out" / "sydney_train.json"], release / "imgs", labels_required=False)


@pytest.mark.parametrize(
    ("made", "given", "names", "hint"),
    [
        ("rsitmd", "rsicd", ["airport_1.tif", "beach_2.tif"], "give --dataset rsitmd"),
        ("ucm", "sydney", ["1.tif", "700.tif"], "give --dataset ucm"),
        ("sydney", "ucm", [f"{number}.tif" for number in range(1, 614)], "give --dataset sydney"),
        ("rsicd", "rsitmd", ["00001.jpg", "beach_2.jpg"], "give --dataset rsicd"),
        ("rsicd", "rsicd", ["COCO_val2014_1.png"], "which is not this release (10,921 pictures)"),
    ],
)
def test_a_release_of_another_data_set_is_told(tmp_path, made, given, names, hint):
    file = {"rsicd": "dataset_rsicd.json", "rsitmd": "dataset_RSITMD.json"}.get(given, "dataset.json")
    (tmp_path / "release" / "images").mkdir(parents=True)
    content = {"images": [entry(name, "train") for name in names], "dataset": made}
    (tmp_path / "release" / file).write_text(json.dumps(content))
    message = told(tmp_path / "release", tmp_path / "out", dataset=given)
    assert f"lists {len(names)} pictures such as {names[0]!r}, which is not this release" in message
    assert hint in message


def test_the_captions_file_of_another_release_is_told(release, tmp_path):
    message = told(release, tmp_path / "out", dataset="rsitmd")
    assert "dataset_RSITMD.json: no such file: there is the captions file of rsicd" in message


def test_a_picture_of_ucm_without_a_number_is_told(tmp_path):
    entries = [entry(name, "train") for name in ("1.tif", "2.tif", "beach.tif")]
    release = make_release(tmp_path / "ucm", "ucm", entries)
    assert "'beach.tif' has no class" in told(release, tmp_path / "out", dataset="ucm")


# Published splits


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A published split of the small release: beach_1 and airport_2 are val, whatever the case."""
    val_list = tmp_path / "val.txt"
    val_list.write_text("beach_1.jpg\r\nairport_2.JPG\r\n")
    split = PublishedSplit(val_list, {"train": 1, "val": 2, "test": 2}, train_captions=3)
    monkeypatch.setitem(published_splits.PUBLISHED, "rsicd", split)
    return val_list


def test_the_published_split_is_the_list_the_test_split_and_the_rest(release, tmp_path, published):
    listed = [entry(name, split, raw) for name, split, _, raw in PICTURES]
    save(release, [{**one, "filename": one["filename"].replace("airport", "Airport")} for one in listed])
    prepare(release, tmp_path / "out", "--split", "published")
    images = {split: {entry["image"] for entry in load(tmp_path / "out", split)} for split in ("train", "val", "test")}
    assert images == {
        "train": {"00003.jpg"},
        "val": {"beach_1.jpg", "airport_2.jpg"},
        "test": {"pond_4.jpg", "beach_5.jpg"},
    }


def test_a_list_that_names_pictures_which_are_not_there_is_told(release, tmp_path, published):
    published.write_text("beach_1.jpg\nbeach_8.jpg\nbeach_7.jpg\n")
    message = told(release, tmp_path / "out", "--split", "published")
    assert "train 2 of 1, val 1 of 2, test 2 of 2 pictures" in message
    assert "2 of the published validation list are not in the release (beach_7.jpg first)" in message


def test_a_test_picture_in_the_published_validation_list_is_told(release, tmp_path, published):
    published.write_text("beach_1.jpg\npond_4.jpg\n")
    message = told(release, tmp_path / "out", "--split", "published")
    assert "test 1 of 2" in message
    assert "1 of its test pictures are in the published validation list (pond_4.jpg first)" in message


def test_a_test_picture_in_the_list_is_told_even_where_the_numbers_fit(release, tmp_path, published, monkeypatch):
    published.write_text("beach_1.jpg\npond_4.jpg\n")
    split = PublishedSplit(published, {"train": 2, "val": 2, "test": 1}, train_captions=4)
    monkeypatch.setitem(published_splits.PUBLISHED, "rsicd", split)
    assert "(pond_4.jpg first)" in told(release, tmp_path / "out", "--split", "published")


def test_the_published_split_has_all_its_captions(release, tmp_path, published):
    save(release, [entry(name, split, raw[:2]) for name, split, _, raw in PICTURES])
    message = told(release, tmp_path / "out", "--split", "published")
    assert "train 1 of 1, val 2 of 2, test 2 of 2 pictures, 2 of 3 training captions" in message


def test_the_published_split_must_be_whole_after_defects_too(release, tmp_path, published):
    (release / "images" / "pond_4.jpg").write_bytes(b"")
    assert "test 1 of 2 pictures" in told(release, tmp_path / "out", "--split", "published")


def test_the_published_split_of_ucm_needs_all_its_pictures(tmp_path):
    entries = [entry(f"{number}.tif", split) for number, split in enumerate(("train", "val", "test"), 1)]
    release = make_release(tmp_path / "ucm", "ucm", entries)
    assert "3 of its 2,100 pictures" in told(release, tmp_path / "out", "--split", "published", dataset="ucm")


@pytest.mark.parametrize(("dataset", "count"), [("rsicd", 1966), ("rsitmd", 856)])
def test_the_published_validation_lists_are_whole(dataset, count):
    split = published_splits.PUBLISHED[dataset]
    assert len(set(split.val_list.read_text().split())) == count == split.pictures["val"]
    assert 5 * split.pictures["train"] == split.train_captions


# What is wrong with a release is told in one line


def test_a_folder_that_is_not_the_release_is_named(release, tmp_path):
    output = tmp_path / "out"
    shutil.move(release / "images", tmp_path / "elsewhere")
    assert "no folder of pictures (images or RSICD_images)" in told(release, output)
    (release / "dataset_rsicd.json").unlink()
    assert f"cannot read {release / 'dataset_rsicd.json'}" in told(release, output)
    assert "cannot read" in told(tmp_path / "nowhere", output)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"images": [{"filename": "beach', "not JSON, or is cut short"),
        (b"\xff", "not UTF-8"),
        ('{"images": []}'.encode("utf-16"), "not UTF-8"),
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
        (("below/beach_1.jpg", "train", ["A beach ."]), "is not the name of a file"),
        (("beach_6.jpg", "restval", ["A beach ."]), "has the split 'restval'"),
        (("beach_6.jpg", "train", [3]), 'has no "sentences" with a string "raw" each'),
    ],
)
def test_an_entry_of_another_form_is_told(release, tmp_path, picture, problem):
    name, split, captions = picture
    odd = {**entry(name, split, ()), "sentences": [{"raw": raw} for raw in captions]}
    save(release, [*(entry(name, split, raw) for name, split, _, raw in PICTURES), odd])
    message = told(release, tmp_path / "out")
    assert f"{release / 'dataset_rsicd.json'}: 1 problem: image 6: " in message and problem in message


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_half_unpacked_release_is_told(release, tmp_path, damage):
    for name in ("beach_1.jpg", "pond_4.jpg"):
        file = release / "images" / name
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:300])
    message = told(release, tmp_path / "out")
    assert (
        "2 of 5 pictures are missing or unreadable, 'beach_1.jpg' first: the release is not unpacked in full" in message
    )


def test_a_release_without_one_of_the_splits_is_told(release, tmp_path):
    save(release, [entry(name, split, raw) for name, split, _, raw in PICTURES if split != "val"])
    assert "no picture of the split val: give --split published" in told(release, tmp_path / "out")


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


@pytest.mark.parametrize(
    ("arguments", "dataset", "problem"),
    [
        (["--seed", "1"], "rsicd", "--seed is for --dataset folder"),
        (["--labels", "scene"], "folder", "leave --labels out"),
        (["--split", "published"], "folder", "no published split"),
    ],
)
def test_arguments_that_contradict_each_other_are_told(release, tmp_path, arguments, dataset, problem):
    assert problem in told(release, tmp_path / "out", *arguments, dataset=dataset)


# Another data set to check against


@pytest.fixture
def other(release, tmp_path):
    """RSITMD with one picture of the small RSICD release at another size and turned, prepared."""
    names = [("train", "beach_1.tif"), ("val", "airport_3.tif"), ("test", "park_7.tif")]
    folder = make_release(tmp_path / "rsitmd", "rsitmd", [entry(name, split) for split, name in names])
    shared = Image.open(release / "images" / "pond_4.jpg").resize((64, 64)).transpose(Image.Transpose.ROTATE_90)
    shared.save(folder / "images" / "park_7.tif")
    prepare(folder, tmp_path / "other", dataset="rsitmd")
    return tmp_path / "other"


SHARED = {"images": ["pond_4.jpg", "park_7.tif"], "splits": ["test", "test"]}


def shared_pairs(output_dir):
    pairs = json.loads((output_dir / "report.json").read_text())["near_duplicates"]["across_sets"]
    assert len(pairs) <= 1
    return pairs[0] if pairs else None


def test_pictures_of_another_set_are_found_by_its_report(release, tmp_path, other, capsys):
    prepare(release, tmp_path / "out", "--check_against", str(other / "report.json"))
    assert "across sets: 1 test here, test there ('pond_4.jpg' and 'park_7.tif' first)" in capsys.readouterr().out
    pair = shared_pairs(tmp_path / "out")
    assert {name: pair[name] for name in SHARED} == SHARED
    assert pair["turn"] == "turned by 90 degrees" and pair["blocks"] > 0.9


def test_another_set_to_check_against_is_reason_to_prepare_again(release, tmp_path, other):
    prepare(release, tmp_path / "out")
    prepare(release, tmp_path / "out", "--check_against", str(other / "report.json"))
    assert shared_pairs(tmp_path / "out") is not None


def test_an_annotation_file_stands_for_its_own_pictures(release, tmp_path, other):
    prepare(release, tmp_path / "test", "--check_against", str(other / "rsitmd_test.json"))
    assert shared_pairs(tmp_path / "test")["images"] == SHARED["images"]
    prepare(release, tmp_path / "train", "--check_against", str(other / "rsitmd_train.json"))
    assert shared_pairs(tmp_path / "train") is None


def test_without_its_pictures_another_set_is_compared_by_hash(release, tmp_path, other):
    shutil.rmtree(tmp_path / "rsitmd")
    prepare(release, tmp_path / "out", "--check_against", str(other / "report.json"))
    pair = shared_pairs(tmp_path / "out")
    assert pair["images"] == SHARED["images"] and pair["blocks"] is None and pair["distance"] <= 48


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not JSON"),
        ("{}", "is not a report"),
        (
            '{"format": 2, "arguments": {"dataset": "x"}, "image_root": ".", "pictures": {"train": {"a": "ff"}}}',
            "damaged",
        ),
        ('[{"image": "a.jpg", "caption": "x"}]', "has no report.json beside it"),
    ],
)
def test_what_is_no_report_is_told(release, tmp_path, content, problem):
    (tmp_path / "other.json").write_text(content)
    assert problem in told(release, tmp_path / "out", "--check_against", str(tmp_path / "other.json"))


def test_real_pictures_of_rsicd_are_prepared(tmp_path, capsys):
    if not RSICD_MINI.exists():
        pytest.skip("RSICD is not here")
    prepare(RSICD_MINI, tmp_path / "scene", "--labels", "scene")
    assert "2002 pictures, 10010 captions, 31 labels" in capsys.readouterr().out
    counts = Counter()
    for split in ("val", "test"):
        evaluation = read_evaluation(tmp_path / "scene" / f"rsicd_{split}.json", RSICD_MINI / "images")
        counts[split] = len(evaluation.images)
        assert len(evaluation.captions) == 5 * len(evaluation.images)
    records = read_train([tmp_path / "scene" / "rsicd_train.json"], RSICD_MINI / "images", labels_required=True)
    counts["train"] = len({record.image_id for record in records})
    assert counts == {"train": 2002, "val": 300, "test": 499}
    assert {record.label for record in records} == set(range(31))


def test_the_published_split_of_an_extract_says_what_is_missing(tmp_path):
    if not RSICD_MINI.exists():
        pytest.skip("RSICD is not here")
    message = told(RSICD_MINI, tmp_path / "out", "--split", "published")
    assert "test 0 of 1,093 pictures" in message
    assert "499 of its test pictures are in the published validation list" in message
