"""Annotation files -> checked records."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dataset import annotations
from dataset.annotations import EvaluationSet, TrainRecord, read_evaluation, read_train
from dataset.shared_pictures import Split, shared_pictures
from utils.errors import InputError


@pytest.fixture
def image_root(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (root / name).touch()
    return root


def train_entry(**changes):
    entry = {"caption": "Some planes .", "image": "a.jpg", "image_id": 7, "label": 0, "label_name": "airport"}
    return {key: value for key, value in (entry | changes).items() if value is not ...}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def told(read, *arguments, **options):
    with pytest.raises(InputError) as error:
        read(*arguments, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_train_records_of_several_files_follow_one_another_with_dense_image_ids(tmp_path, image_root):
    port = train_entry(image="b.jpg", image_id=900, label=3, label_name="port")
    first = write(tmp_path / "1.json", [train_entry(), port])
    second = write(tmp_path / "2.json", [train_entry(caption="Two-way road!"), train_entry(image="c.jpg", image_id=2)])
    a, b, c = (str(image_root / name) for name in ("a.jpg", "b.jpg", "c.jpg"))
    assert read_train([first, second], image_root, labels_required=True) == [
        TrainRecord("some planes", a, 0, 0, "airport"),
        TrainRecord("some planes", b, 1, 3, "port"),
        TrainRecord("two way road", a, 0, 0, "airport"),
        TrainRecord("some planes", c, 2, 0, "airport"),
    ]


def test_records_cannot_be_changed(tmp_path, image_root):
    (record,) = read_train([write(tmp_path / "t.json", [train_entry()])], image_root, labels_required=True)
    with pytest.raises(AttributeError):
        record.label = 1


def test_captions_are_cut_to_max_words(tmp_path, image_root):
    train = write(tmp_path / "t.json", [train_entry(caption="one two three")])
    assert read_train([train], image_root, max_words=2, labels_required=True)[0].caption == "one two"
    val = write(tmp_path / "v.json", [{"image": "a.jpg", "caption": ["one two three"]}])
    assert read_evaluation(val, image_root, max_words=2).captions == ("one two",)


def test_labels_may_be_absent_only_where_they_are_not_needed(tmp_path, image_root):
    file = write(tmp_path / "t.json", [train_entry(label=..., label_name=...)])
    assert read_train([file], image_root, labels_required=False)[0][3:] == (None, None)
    assert "record 1: has no 'label'" in told(read_train, [file], image_root, labels_required=True)


def test_evaluation_captions_know_their_picture(tmp_path, image_root):
    entries = [{"image": "b.jpg", "caption": ["One .", "Two ."]}, {"image": "a.jpg", "caption": ["Three"]}]
    file = write(tmp_path / "v.json", entries)
    images = (str(image_root / "b.jpg"), str(image_root / "a.jpg"))
    plain = EvaluationSet(images, ("one", "two", "three"), [0, 0, 1], None, None, ("b.jpg", "a.jpg"))
    assert read_evaluation(file, image_root) == plain
    labelled = write(tmp_path / "l.json", [entry | {"label": 4} for entry in entries])
    assert read_evaluation(labelled, image_root).labels == [4, 4]
    assert read_evaluation(labelled, image_root).label_names is None
    named = write(tmp_path / "n.json", [entry | {"label_name": f"of {entry['image']}"} for entry in entries])
    assert read_evaluation(named, image_root).label_names == ["of b.jpg", "of a.jpg"]
    half = write(tmp_path / "h.json", [entries[0], entries[1] | {"label": 4}])
    assert "1 of 2 records have a label" in told(read_evaluation, half, image_root)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"caption": ...}, "has no 'caption'"),
        ({"caption": 3}, "'caption' must be a string, not 3"),
        ({"caption": " . "}, "has no word left"),
        ({"image": ...}, "has no 'image'"),
        ({"image": None}, "'image' must be a string"),
        ({"image": "d.jpg"}, "'d.jpg' is not in image_root"),
        ({"image": "."}, "'.' is not in image_root"),
        ({"image": "a.jpg\0"}, "is not in image_root"),
        ({"image": "../images/a.jpg"}, "lies outside image_root"),
        ({"image": "x/../../images/a.jpg"}, "lies outside image_root"),
        ({"image_id": ...}, "has no 'image_id'"),
        ({"image_id": "7"}, "'image_id' must be a whole number, not '7'"),
        ({"image_id": True}, "'image_id' must be a whole number"),
        ({"label": 1.0}, "'label' must be a whole number"),
        ({"label": 2**63}, "does not fit 64 bits"),
        ({"label_name": 5}, "'label_name' must be a string"),
        ({"image": "b.jpg"}, "image_id 7 belongs to"),
    ],
)
def test_a_wrong_train_record_is_named(tmp_path, image_root, changes, problem):
    file = write(tmp_path / "t.json", [train_entry(), train_entry(**changes)])
    message = told(read_train, [file], image_root, labels_required=True)
    assert message.startswith(f"1 problem: {file} record 2: ") and problem in message


def test_an_absolute_image_path_outside_image_root_is_refused(tmp_path, image_root):
    write(tmp_path / "secret.jpg", "")
    file = write(tmp_path / "t.json", [train_entry(image=str(tmp_path / "secret.jpg"))])
    assert "lies outside image_root" in told(read_train, [file], image_root, labels_required=True)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("text", "is not a JSON object"),
        ({"image": "b.jpg"}, "has no 'caption'"),
        ({"image": "b.jpg", "caption": "text"}, "'caption' must be a list"),
        ({"image": "b.jpg", "caption": []}, "'caption' is an empty list"),
        ({"image": "b.jpg", "caption": ["text", 1]}, "'caption' must hold strings only"),
        ({"image": "b.jpg", "caption": ["text", "..."]}, "has no word left"),
        ({"image": "d.jpg", "caption": ["text"]}, "is not in image_root"),
        ({"image": "./a.jpg", "caption": ["text"]}, "is in record 1 already"),
        ({"image": "b.jpg", "caption": ["text"], "label": "x"}, "'label' must be a whole number"),
        ({"image": "b.jpg", "caption": ["text"], "label_name": 5}, "'label_name' must be a string"),
    ],
)
def test_a_wrong_evaluation_record_is_named(tmp_path, image_root, entry, problem):
    file = write(tmp_path / "v.json", [{"image": "a.jpg", "caption": ["text"]}, entry])
    message = told(read_evaluation, file, image_root)
    assert message.startswith(f"1 problem: {file} record 2: ") and problem in message


def test_all_problems_of_all_files_are_counted_and_five_named(tmp_path, image_root):
    wrong = [train_entry(caption="."), train_entry(), train_entry(image="d.jpg", image_id=8)] * 2
    files = [write(tmp_path / name, wrong) for name in ("1.json", "2.json")]
    message = told(read_train, files, image_root, labels_required=True)
    assert message.startswith("8 problems: ") and message.endswith("and 3 more")
    assert f"{files[0]} record 6: image 'd.jpg'" in message and f"{files[1]} record 1: caption" in message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a JSON annotation file"),
        (b'[{"caption": "cut', "not a JSON annotation file"),
        (b"[" * 100_000, "not a JSON annotation file"),
        (b"\xff", "not a JSON annotation file"),
        (b"[]", "JSON list of at least one record"),
        (b'{"images": []}', "JSON list of at least one record"),
    ],
)
def test_a_file_that_is_no_annotation_file_is_named(tmp_path, image_root, content, problem):
    file = tmp_path / "x.json"
    file.write_bytes(content)
    for message in (
        told(read_train, [file], image_root, labels_required=False),
        told(read_evaluation, file, image_root),
    ):
        assert str(file) in message and problem in message


def test_a_train_and_an_evaluation_file_are_not_taken_for_each_other(tmp_path, image_root):
    train = write(tmp_path / "t.json", [train_entry()])
    val = write(tmp_path / "v.json", [{"image": "a.jpg", "caption": ["text"]}])
    assert f"{val} is an evaluation file" in told(read_train, [val], image_root, labels_required=True)
    assert f"{train} is a train file" in told(read_evaluation, train, image_root)


def test_a_missing_file_and_a_missing_image_root_are_named(tmp_path, image_root):
    file = write(tmp_path / "t.json", [train_entry()])
    absent = tmp_path / "absent"
    assert str(absent) in told(read_train, [absent], image_root, labels_required=True)
    assert str(absent) in told(read_evaluation, absent, image_root)
    assert f"image_root {str(absent)!r} is not a folder" in told(read_train, [file], absent, labels_required=True)
    assert "train_file" in told(read_train, [], image_root, labels_required=True)


def test_each_picture_is_looked_up_once(tmp_path, image_root, monkeypatch):
    looked_up = []
    is_file = annotations.os.path.isfile
    monkeypatch.setattr(annotations.os.path, "isfile", lambda path: looked_up.append(path) or is_file(path))
    file = write(tmp_path / "t.json", [train_entry()] * 5 + [train_entry(image="b.jpg", image_id=8)] * 5)
    read_train([file], image_root, labels_required=True)
    assert sorted(looked_up) == [str(image_root / "a.jpg"), str(image_root / "b.jpg")]


def test_reading_annotations_needs_no_torch():
    code = "import dataset.annotations, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


# ---- how files number pictures and scenes ----

LAKE, PARK = {"label": 0, "label_name": "lake"}, {"label": 1, "label_name": "park"}
OTHER = {"image": "b.jpg", "image_id": 8}


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([{}, {"image_id": 8}], "has image_id 7 and 8, so that its captions would be each other's negatives"),
        (
            [LAKE, {"image": "b.jpg", "image_id": 8, "label": 0, "label_name": "park"}],
            "label 0 is both 'lake' and 'park'",
        ),
        (
            [LAKE, {"image": "b.jpg", "image_id": 8, "label": 1, "label_name": "lake"}],
            "two labels are both named 'lake'",
        ),
        ([LAKE, PARK], "has the labels 0 and 1"),
    ],
)
def test_a_file_that_numbers_pictures_or_scenes_wrongly_is_refused(tmp_path, image_root, entries, problem):
    file = write(tmp_path / "t.json", [train_entry(**entry) for entry in entries])
    with pytest.raises(InputError) as raised:
        read_train([file], image_root, labels_required=True)
    assert problem in str(raised.value) and "record 2" in str(raised.value)
    if "label" in problem:
        read_train([file], image_root, labels_required=False)  # where no loss looks at them


def test_captions_numbered_one_by_one_can_be_told_apart_by_their_pictures(tmp_path, image_root):
    entries = [train_entry(image_id=0), train_entry(image_id=1), train_entry(image="b.jpg", image_id=2)]
    file = write(tmp_path / "t.json", entries)
    records = read_train([file], image_root, labels_required=True, ids_by_path=True)
    assert [record.image_id for record in records] == [0, 0, 1]


def test_joined_files_get_one_number_a_picture_and_a_scene(tmp_path, image_root):
    one = write(tmp_path / "1.json", [train_entry(**LAKE), train_entry(image="b.jpg", image_id=8, **PARK)])
    swapped = {"label": 0, "label_name": "park"}, {"label": 1, "label_name": "lake"}
    (tmp_path / "other").mkdir()
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / "other" / name).write_bytes(b"x")
    two = write(tmp_path / "2.json", [train_entry(**swapped[0]), train_entry(image="c.jpg", image_id=9, **swapped[1])])
    said = []
    roots = [image_root, tmp_path / "other"]
    records = read_train([one, two], image_root, labels_required=True, image_roots=roots, say=said.append)
    assert [record.image_id for record in records] == [0, 1, 2, 3]  # a.jpg is another picture in the other folder
    assert [(record.label, record.label_name) for record in records] == [
        (0, "lake"),
        (1, "park"),
        (1, "park"),
        (0, "lake"),
    ]
    assert said == [
        "picture ids of the training files collide: pictures are numbered anew, by their files",
        "labels of the training files mean different scenes: 2 scenes are numbered anew, by name",
    ]
    assert read_train([one], image_root, labels_required=True, say=said.append) == records[:2] and len(said) == 2


def test_one_picture_with_two_scenes_in_two_files_is_refused(tmp_path, image_root):
    files = [write(tmp_path / f"{number}.json", [train_entry(**scene)]) for number, scene in enumerate((LAKE, PARK))]
    with pytest.raises(InputError, match=r"a\.jpg has one label in a training file and another in the next"):
        read_train(files, image_root, labels_required=True)


def training(records):
    return Split("the training files", [], {record.image for record in records})


def test_a_picture_is_one_however_its_folder_is_spelled(tmp_path, image_root):
    (tmp_path / "link").symlink_to(image_root)
    files = [write(tmp_path / f"{number}.json", [train_entry()]) for number in (1, 2)]
    roots = [image_root, tmp_path / "link"]
    records = read_train(files, image_root, labels_required=True, image_roots=roots)
    assert [record.image_id for record in records] == [0, 0]
    evaluation = read_evaluation(write(tmp_path / "e.json", [{"image": "a.jpg", "caption": ["A plane"]}]), roots[1])
    (line,) = shared_pictures([training(records[:1]), Split("e.json", ["e.json"], evaluation.images)])
    assert "1 pictures" in line


def test_a_file_may_name_a_scene_in_some_of_its_records(tmp_path, image_root):
    unnamed = train_entry(image="b.jpg", image_id=8, label=0)
    del unnamed["label_name"]
    file = write(tmp_path / "1.json", [unnamed, train_entry(**LAKE)])
    assert len(read_train([file], image_root, labels_required=True)) == 2


def test_files_that_disagree_without_names_are_refused(tmp_path, image_root):
    unnamed = train_entry(image="b.jpg", image_id=8, label=0)
    del unnamed["label_name"]
    files = [write(tmp_path / "1.json", [train_entry(**PARK)]), write(tmp_path / "2.json", [unnamed])]
    with pytest.raises(InputError, match="not every record has a label_name"):
        read_train(files, image_root, labels_required=True)
    read_train(files, image_root, labels_required=False)


def test_pictures_of_an_evaluation_that_are_trained_on_are_counted(tmp_path, image_root):
    records = read_train([write(tmp_path / "t.json", [train_entry()])], image_root, labels_required=True)
    for image, count in (("a.jpg", 1), ("b.jpg", 0)):
        evaluation = read_evaluation(write(tmp_path / "e.json", [{"image": image, "caption": ["A plane"]}]), image_root)
        lines = list(shared_pictures([training(records), Split("e.json", ["e.json"], evaluation.images)]))
        assert len(lines) == count
        assert not count or "1 pictures of e.json are in the training files too" in lines[0]
        assert not count or "a.jpg first" in lines[0]


def test_pictures_of_two_splits_that_look_the_same_are_counted_by_the_report(tmp_path):
    hashes = {
        "train": {"a.jpg": "1f" * 32, "b.jpg": "2e" * 32},
        "val": {"c.jpg": "2e" * 32},
        "test": {"d.jpg": "3d" * 32},
    }
    (tmp_path / "report.json").write_text(json.dumps({"image_root": "images", "pictures": hashes}))
    splits = [
        Split(
            f"{split}.json", [str(tmp_path / f"{split}.json")], [str(tmp_path / "images" / image) for image in images]
        )
        for split, images in hashes.items()
    ]
    (line,) = shared_pictures(splits)
    assert line.startswith("warning: 1 pictures of val.json look as one of train.json does")
    assert line.endswith("c.jpg first")
    for damaged in ("[]", "{", '{"image_root": 3, "pictures": {}}', '{"image_root": "", "pictures": {"val": []}}'):
        (tmp_path / "report.json").write_text(damaged)
        assert list(shared_pictures(splits)) == []


def test_pictures_that_validation_and_test_share_are_counted():
    (line,) = shared_pictures([Split("v.json", [], ["a.jpg", "b.jpg"]), Split("t.json", [], ["b.jpg", "c.jpg"])])
    assert line.startswith("warning: 1 pictures of t.json are in v.json too")
