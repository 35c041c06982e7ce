"""One's own pictures: a table of captions and a split."""

import json
from collections import Counter
from pathlib import Path

import pytest

import Prepare
from dataset.releases.folder_set import drawn_split
from tests.small_releases import picture
from utils.errors import InputError

HEADER = "image,caption,label,split"
ROWS = [
    "a.jpg,A beach,beach,train",
    'a.jpg,"Sand, and sea",beach,train',
    "b.jpg,A runway,airport,val",
    "c.jpg,A pond,pond,test",
    "c.jpg,Water,pond,test",
]


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "mine"
    place.mkdir()
    for name in "abcdefghijklmnopqrst":
        picture(name).save(place / f"{name}.jpg")
    return place


def table(folder, text, name="captions.csv"):
    for old in [*folder.glob("*.csv"), *folder.glob("*.jsonl")]:
        old.unlink()
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def prepare(release, output_dir, *more):
    return Prepare.main(["--dataset", "folder", "--release", str(release), "--output_dir", str(output_dir), *more])


def load(output_dir, split):
    return json.loads((output_dir / f"folder_{split}.json").read_text())


def told(folder, text, name="captions.csv", *more):
    table(folder, text, name)
    with pytest.raises(InputError) as error:
        prepare(folder, folder.parent / "out", *more)
    assert not any((folder.parent / "out").iterdir())
    message = str(error.value)
    assert "\n" not in message
    return message


EXPECTED_TRAIN = [
    {"caption": "A beach", "image": "a.jpg", "image_id": 0, "label": 0, "label_name": "beach"},
    {"caption": "Sand, and sea", "image": "a.jpg", "image_id": 0, "label": 0, "label_name": "beach"},
]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_csv_becomes_annotation_files(folder, tmp_path, line_end, mark):
    table(folder, mark + line_end.join([HEADER, *ROWS, ""]).encode())
    prepare(folder, tmp_path / "out")
    assert load(tmp_path / "out", "train") == EXPECTED_TRAIN
    assert load(tmp_path / "out", "test") == [
        {"image": "c.jpg", "caption": ["A pond", "Water"], "label": 2, "label_name": "pond"}
    ]


def test_json_lines_give_the_same_and_may_be_named(folder, tmp_path):
    table(folder, "\n".join([HEADER, *ROWS]))
    rows = [
        {"image": "a.jpg", "caption": "A beach", "label": "beach", "split": "train"},
        {"image": "a.jpg", "caption": "Sand, and sea", "label": "beach", "split": "train"},
        {"image": "b.jpg", "caption": "A runway", "label": "airport", "split": "val"},
        {"image": "c.jpg", "caption": "A pond", "label": "pond", "split": "test"},
    ]
    (folder / "mine.jsonl").write_text("\r\n".join(json.dumps(row) for row in rows) + "\r\n\r\n")
    prepare(folder / "mine.jsonl", tmp_path / "out")
    assert load(tmp_path / "out", "train") == EXPECTED_TRAIN


def test_a_drawn_split_keeps_the_captions_of_a_picture_together(folder, tmp_path, capsys):
    rows = [f"{name}.jpg,caption {number} of {name}" for number in range(3) for name in "abcdefghijklmnopqrst"]
    table(folder, "\n".join(["image,caption", *rows]))
    prepare(folder, tmp_path / "out")
    assert capsys.readouterr().out.rstrip().endswith("--override use_affil_loss=False")  # no labels
    images = {split: [entry["image"] for entry in load(tmp_path / "out", split)] for split in ("train", "val", "test")}
    assert {split: len(set(of_split)) for split, of_split in images.items()} == {"train": 16, "val": 2, "test": 2}
    assert set(Counter(images["train"]).values()) == {3}
    assert not set(images["train"]) & {*images["val"], *images["test"]}
    assert "label" not in load(tmp_path / "out", "train")[0]
    prepare(folder, tmp_path / "same", "--seed", "42")
    assert load(tmp_path / "same", "test") == load(tmp_path / "out", "test")
    prepare(folder, tmp_path / "other", "--seed", "7")
    assert load(tmp_path / "other", "test") != load(tmp_path / "out", "test")


def test_a_drawn_split_does_not_depend_on_the_order_of_the_rows():
    names = [f"{number}.jpg" for number in range(50)]
    assert drawn_split(names, 1) == drawn_split(names[::-1], 1)
    assert Counter(drawn_split(names, 1).values()) == {"train": 40, "val": 5, "test": 5}
    assert Counter(drawn_split(names[:3], 1).values()) == {"train": 1, "val": 1, "test": 1}


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["image,text", "a.jpg,x"], "has no column caption: its first row is 'image,text'"),
        (["image|caption", "a.jpg|x"], "has no column image and caption"),
        (["image,caption,image", "a.jpg,x,y"], "has the column image twice"),
        ([HEADER, *ROWS, "d.jpg,x,pond,dev"], "a split is one of train, val, test: 1 problem: row 7 has 'dev'"),
        ([HEADER, *ROWS, "d.jpg,x,pond,"], "row 7 has no split, others have one"),
        ([HEADER, *ROWS, "d.jpg,x,,val", "e.jpg,x,,val"], "2 rows (7, 8) have no label, others have one"),
        ([HEADER, *ROWS, "a.jpg,x,beach,test"], "rows 2 and 7 give 'a.jpg' the split 'train' and 'test'"),
        ([HEADER, *ROWS, "a.jpg,x,sand,train"], "rows 2 and 7 give 'a.jpg' the label 'beach' and 'sand'"),
        ([HEADER, *ROWS, "d.jpg,a road, a house,pond,val"], "row 7 has not 4 fields as the first row has"),
        ([HEADER, *ROWS, ",x,pond,val"], "row 7 has no image"),
        ([HEADER, *ROWS, 'd.jpg,"x,pond,val'], "is not CSV"),
        ([HEADER], "has no row of a picture"),
        ([], "is empty"),
        (["image,caption", "a.jpg,x", "b.jpg,y"], "at least 3 are needed"),
        (["image,caption,split", "a.jpg,x,train", "b.jpg,x,test"], "no picture of the split val"),
        (["image,caption", "v.jpg,x", "w.jpg,y", "a.jpg,z"], "2 of 3 pictures are missing, 'v.jpg' first"),
    ],
)
def test_what_is_wrong_in_a_csv_is_told_with_its_row(folder, lines, problem):
    assert problem in told(folder, "\n".join(lines))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"image": "a.jpg", "capt', "row 2 is not JSON, or is cut short"),
        ('["a.jpg", "x"]', "row 2 is not a JSON object"),
        ('{"image": "a.jpg"}', "row 2: 'caption' must be a string, not None"),
        ('{"image": "a.jpg", "caption": ["x"]}', "row 2: 'caption' must be a string"),
        ('{"image": "a.jpg", "caption": "x", "split": 1}', "row 2: 'split' must be a string, not 1"),
    ],
)
def test_what_is_wrong_in_json_lines_is_told_with_its_row(folder, line, problem):
    assert problem in told(folder, '{"image": "b.jpg", "caption": "y"}\n' + line, "captions.jsonl")


def test_another_encoding_is_told(folder):
    assert "is not UTF-8 text" in told(folder, "image,caption\na.jpg,café".encode("latin-1"))


def test_a_seed_beside_a_split_is_told(folder):
    assert "has a column split: leave --seed out" in told(folder, "\n".join([HEADER, *ROWS]), "t.csv", "--seed", "1")


def test_the_table_must_be_the_only_one_or_be_named(folder, tmp_path):
    with pytest.raises(InputError, match="found none"):
        prepare(folder, tmp_path / "out")
    table(folder, "\n".join([HEADER, *ROWS]))
    (folder / "second.CSV").write_text("")
    with pytest.raises(InputError, match=r"found 2 \(captions.csv, second.CSV\)"):
        prepare(folder, tmp_path / "out")
    prepare(folder / "captions.csv", tmp_path / "out")


def test_pictures_outside_the_folder_are_left_out(folder, tmp_path, capsys):
    picture("outside").save(tmp_path / "outside.jpg")
    table(folder, "\n".join([HEADER, *ROWS, "../outside.jpg,x,pond,train"]))
    prepare(folder, tmp_path / "out")
    assert (
        "warning: left out: File names that lead outside the folder: 1 ('../outside.jpg' first)"
        in capsys.readouterr().out
    )
    assert load(tmp_path / "out", "train") == EXPECTED_TRAIN


def test_a_split_is_drawn_among_the_pictures_that_are_there(folder, tmp_path):
    names = [f"{name}.jpg" for name in "abcdefghij"]
    table(folder, "\n".join(["image,caption", *(f"{name},caption of it" for name in names)]))
    (missing,) = (name for name, split in drawn_split(names, 42).items() if split == "val")
    (folder / missing).unlink()
    prepare(folder, tmp_path / "out")
    images = {split: {entry["image"] for entry in load(tmp_path / "out", split)} for split in ("train", "val", "test")}
    assert {split: len(of_split) for split, of_split in images.items()} == {"train": 7, "val": 1, "test": 1}
    assert set.union(*images.values()) == {*names} - {missing}


def test_a_drawn_split_without_a_readable_picture_names_the_cause(folder):
    names = [f"{name}.jpg" for name in "abcdefghij"]
    (damaged,) = (name for name, split in drawn_split(names, 42).items() if split == "val")
    (folder / damaged).write_bytes(b"no picture")
    message = told(folder, "\n".join(["image,caption", *(f"{name},caption of it" for name in names)]))
    assert f"no picture of the split val is there, readable and with a caption ({damaged!r} first)" in message
    assert "another split with --seed" in message


def test_a_folder_that_may_not_be_listed_is_told(folder, tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(InputError, match=r"cannot list .*mine: Permission denied"):
        prepare(folder, tmp_path / "out")
