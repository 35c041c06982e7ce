"""Every defect of a release is counted, named and handled by its rule."""

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image

import Prepare
from dataset.annotations import read_train
from tests.small_releases import WORDS, entry, make_release, picture
from utils.errors import InputError

NAMES = {
    **{f"beach_{number}.jpg": "train" for number in range(1, 13)},
    "beach_13.jpg": "val",
    "beach_14.jpg": "test",
}


@pytest.fixture
def entries():
    return [entry(name, split) for name, split in NAMES.items()]


@pytest.fixture
def release(tmp_path, entries):
    return make_release(tmp_path / "release", "rsicd", entries)


@pytest.fixture
def report(release, tmp_path):
    """Prepare the release with these entries; the report's defects that were found, and what training reads."""

    def prepared(entries):
        (release / "dataset_rsicd.json").write_text(json.dumps({"images": entries}))
        Prepare.main(["--dataset", "rsicd", "--release", str(release), "--output_dir", str(tmp_path / "out")])
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        read_train([tmp_path / "out" / "rsicd_train.json"], release / "images", labels_required=True)
        for kind, found in report["defects"].items():
            assert found["rule"] and found["count"] == len(found["items"]), kind
        return {kind: found["items"] for kind, found in report["defects"].items() if found["count"]}

    return prepared


def captions(tmp_path, name):
    records = json.loads((tmp_path / "out" / "rsicd_train.json").read_text())
    return [record["caption"] for record in records if record["image"] == name]


def with_captions(entries, *captions):
    return [entry("beach_1.jpg", "train", captions), *entries[1:]]


def test_a_sound_release_has_no_defect(report, entries):
    assert report(entries) == {}


# Captions


def test_a_caption_without_a_word_is_replaced_by_the_first_with_one(report, entries, tmp_path):
    found = report(with_captions(entries, ".", "A beach .", "-/-", "Sand .", "Sea ."))
    assert [(item["image"], item["caption"]) for item in found.pop("captions_empty")] == [
        ("beach_1.jpg", 1),
        ("beach_1.jpg", 3),
    ]
    assert captions(tmp_path, "beach_1.jpg") == ["A beach .", "A beach .", "A beach .", "Sand .", "Sea ."]
    assert found == {}  # the replacements are not counted again as repeated


def test_text_that_is_not_unicode_counts_as_empty(report, entries, tmp_path):
    found = report(with_captions(entries, "\ud800 a", *WORDS[1:]))
    assert [item["caption"] for item in found["captions_empty"]] == [1]
    assert captions(tmp_path, "beach_1.jpg")[0] == WORDS[1]


@pytest.mark.parametrize("none", [(), (".", "...")])
def test_a_picture_without_any_word_is_left_out(report, entries, tmp_path, none):
    found = report(with_captions(entries, *none))
    assert [item["image"] for item in found["captions_none"]] == ["beach_1.jpg"]
    assert captions(tmp_path, "beach_1.jpg") == []


def test_repeats_within_a_picture_are_counted_after_cleaning(report, entries, tmp_path):
    found = report(with_captions(entries, "A beach .", "Sea .", "a beach", "A BEACH!", "Sand ."))
    assert found == {
        "captions_repeated": [
            {"image": "beach_1.jpg", "caption": 3, "detail": "a beach"},
            {"image": "beach_1.jpg", "caption": 4, "detail": "a beach"},
        ]
    }
    assert len(captions(tmp_path, "beach_1.jpg")) == 5


def test_captions_past_thirty_words_are_named_with_what_is_lost(report, entries, tmp_path):
    thirty = " ".join(["word"] * 30)
    found = report(with_captions(entries, thirty, f"{thirty} lost-words", *WORDS[2:]))
    detail = "32 words, without: lost words"
    assert found["captions_cut"] == [{"image": "beach_1.jpg", "caption": 2, "detail": detail}]
    assert captions(tmp_path, "beach_1.jpg")[1] == f"{thirty} lost-words"  # reading cuts it


def test_characters_outside_ascii_are_named(report, entries):
    found = report(with_captions(entries, "Two planes’ wings – grey", *WORDS[1:]))
    assert [item["detail"] for item in found["captions_characters"]] == [
        "– (U+2013), ’ (U+2019) in: two planes’ wings – grey"
    ]


def test_fewer_than_five_captions_are_named(report, entries):
    assert report(with_captions(entries, *WORDS[:4])) == {
        "captions_few": [{"image": "beach_1.jpg", "detail": "4 captions"}]
    }


# Files


def test_names_that_lead_outside_the_folder_are_left_out(report, entries, tmp_path, release):
    picture("x").save(release / "outside.jpg")
    found = report([*entries, entry("../outside.jpg", "train"), entry(str(release / "outside.jpg"), "train")])
    assert {item["image"] for item in found["names_outside"]} == {"../outside.jpg", str(release / "outside.jpg")}
    assert captions(tmp_path, "../outside.jpg") == []


def test_a_repeated_name_counts_once(report, entries, tmp_path):
    again = [entry("beach_1.jpg", "test", ["Again ."]), entry("BEACH_2.jpg", "test", ["Again ."])]
    found = report([*entries, *again])
    assert {item["image"] for item in found["names_repeated"]} == {"beach_1.jpg", "BEACH_2.jpg"}
    assert captions(tmp_path, "beach_1.jpg") == list(WORDS)
    assert "Again" not in (tmp_path / "out" / "rsicd_test.json").read_text()


def test_missing_and_damaged_pictures_are_left_out(report, entries, tmp_path, release, capsys):
    (release / "images" / "beach_1.jpg").unlink()
    whole = (release / "images" / "beach_2.jpg").read_bytes()
    (release / "images" / "beach_2.jpg").write_bytes(whole[: len(whole) * 2 // 3])  # cut within the picture
    found = report(entries)
    assert [item["image"] for item in found["pictures_missing"]] == ["beach_1.jpg"]
    assert [item["image"] for item in found["pictures_unreadable"]] == ["beach_2.jpg"]
    assert "truncated" in found["pictures_unreadable"][0]["detail"]
    assert captions(tmp_path, "beach_1.jpg") == captions(tmp_path, "beach_2.jpg") == []
    printed = capsys.readouterr().out
    assert "warning: left out: Pictures that are missing: 1 ('beach_1.jpg' first)" in printed
    assert "warning: left out: Pictures that cannot be read: 1 ('beach_2.jpg' first)" in printed


def test_a_damaged_picture_is_named_alike_every_time(report, entries, tmp_path, release):
    (release / "images" / "beach_2.jpg").write_bytes(b"no picture")
    detail = report(entries)["pictures_unreadable"][0]["detail"]
    assert detail == "UnidentifiedImageError: cannot identify image file"  # no address of a buffer


def test_upper_case_suffixes_are_found_where_that_is_sure(report, entries, tmp_path, release):
    (release / "images" / "beach_1.jpg").rename(release / "images" / "Beach_1.JPG")
    assert report(entries) == {"names_other_case": [{"image": "Beach_1.JPG", "detail": "listed as beach_1.jpg"}]}
    assert captions(tmp_path, "Beach_1.JPG") == list(WORDS)
    (release / "images" / "beach_2.jpg").rename(release / "images" / "BEACH_2.jpg")
    picture("y").save(release / "images" / "beach_2.JPG")
    found = report(entries)
    assert [item["image"] for item in found["pictures_missing"]] == ["beach_2.jpg"]


# Forms of pictures


def tiff(bands, bits):
    """A TIFF of 8 x 8 pixels of 0, as instruments write them and Pillow does not."""
    entries = [
        (256, 3, 1, 8),
        (257, 3, 1, 8),
        (258, 3, bands, None),
        (259, 3, 1, 1),
        (262, 3, 1, 2 if bands > 2 else 1),
    ]
    extra = [(338, 3, 1, 0)] if bands == 4 else []  # the fourth is not alpha
    entries += [(273, 4, 1, None), (277, 3, 1, bands), (278, 3, 1, 8), (279, 4, 1, 64 * bands * bits // 8), *extra]
    start = 8 + 2 + 12 * len(entries) + 4
    depths = struct.pack(f"<{bands}H", *[bits] * bands)
    places = {258: start, 273: start + len(depths)}
    table = b"".join(
        struct.pack("<HHII", *line[:3], places[line[0]] if line[3] is None else line[3]) for line in entries
    )
    header = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 0)
    return header + depths + bytes(64 * bands * bits // 8)


def in_mode(mode, form="PNG"):
    written = io.BytesIO()
    image = picture("odd", size=(48, 48))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert("RGB").convert(mode) if mode != "RGB;16" else image
    image.save(written, form)
    return written.getvalue()


@pytest.mark.parametrize(
    ("content", "kind", "detail"),
    [
        (in_mode("P"), "pictures_not_rgb", "palette"),
        (in_mode("L"), "pictures_not_rgb", "grey"),
        (in_mode("RGBA"), "pictures_not_rgb", "alpha"),
        (in_mode("CMYK", "TIFF"), "pictures_not_rgb", "CMYK"),
        (in_mode("I;16"), "pictures_deep", "I;16, more than 8 bits a channel"),
        (tiff(3, 16), "pictures_deep", "RGB, more than 8 bits a channel"),
        (tiff(4, 8), "pictures_not_rgb", "TIFF of 4 bands, the first three read"),
        (tiff(8, 8), "pictures_unreadable", "a TIFF that needs --deep_pictures or --bands, or is damaged"),
    ],
)
def test_pictures_that_are_not_rgb_are_named_and_converted_or_left_out(
    report, entries, tmp_path, release, content, kind, detail
):
    (release / "images" / "beach_1.jpg").write_bytes(content)
    found = report(entries)
    assert found[kind] == [{"image": "beach_1.jpg", "detail": detail}]
    assert bool(captions(tmp_path, "beach_1.jpg")) == (kind == "pictures_not_rgb")


def test_pictures_of_another_size_than_most_are_named(report, entries, tmp_path, release):
    picture("small", size=(24, 48)).save(release / "images" / "beach_1.jpg")
    assert report(entries) == {"pictures_other_size": [{"image": "beach_1.jpg", "detail": "24 x 48, most are 48 x 48"}]}
    assert captions(tmp_path, "beach_1.jpg") == list(WORDS)


# Classes


def test_classes_of_one_training_picture_and_of_none_are_named(report, entries, release):
    for name in ("00001.jpg", "00002.jpg", "park_3.jpg", "park_4.jpg"):
        picture(name).save(release / "images" / name)
    more = [
        entry("00001.jpg", "train"),
        entry("00002.jpg", "test"),
        entry("park_3.jpg", "train"),
        entry("park_4.jpg", "val"),
    ]
    assert report([*entries, *more]) == {
        "classes_of_one": [
            {"label": "00001", "image": "00001.jpg", "detail": "1 training picture"},
            {"label": "park", "image": "park_3.jpg", "detail": "1 training picture, 1 in val and test"},
        ],
        "classes_untrained": [{"label": "00002", "image": "00002.jpg", "detail": "0 pictures in val, 1 in test"}],
    }


# Pictures in several splits


def near_duplicates(tmp_path):
    return json.loads((tmp_path / "out" / "report.json").read_text())["near_duplicates"]


def test_the_same_picture_in_two_splits_is_found_though_compressed_and_turned(
    report, entries, tmp_path, release, capsys
):
    original = Image.open(release / "images" / "beach_14.jpg").convert("RGB")
    copy = original.transpose(Image.Transpose.ROTATE_180).resize((40, 40))
    copy.save(release / "images" / "beach_3.jpg", quality=40)
    report(entries)
    near = near_duplicates(tmp_path)
    (pair,) = near["across_splits"]
    assert (pair["images"], pair["splits"]) == (["beach_3.jpg", "beach_14.jpg"], ["train", "test"])
    assert pair["turn"] == "turned by 180 degrees"
    assert near["within_a_split"] == []
    assert (
        "warning: near-duplicate pictures across splits: 1 train and test ('beach_3.jpg' and" in capsys.readouterr().out
    )


def test_the_same_picture_twice_in_one_split_is_told_apart(report, entries, tmp_path, release):
    (release / "images" / "beach_4.jpg").write_bytes((release / "images" / "beach_3.jpg").read_bytes())
    report(entries)
    near = near_duplicates(tmp_path)
    assert near["across_splits"] == []
    assert [(pair["images"], pair["distance"], pair["blocks"]) for pair in near["within_a_split"]] == [
        (["beach_3.jpg", "beach_4.jpg"], 0, 1.0)
    ]


def test_too_many_damaged_pictures_are_an_error(report, entries, release):
    for number in range(1, 4):
        (release / "images" / f"beach_{number}.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"3 of 14 pictures are missing or unreadable"):
        report(entries)


def test_pictures_that_are_turned_when_they_are_read_are_counted(report, entries, tmp_path, release):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(release / "images" / "beach_1.jpg")
    picture.resize((40, 20)).save(release / "images" / "beach_1.jpg", exif=exif)
    found = report(entries)
    assert found["pictures_turned"] == [{"image": "beach_1.jpg", "detail": "orientation 6"}]
    (other,) = found["pictures_other_size"]
    assert other["detail"].startswith("20 x 40, most are")  # as it is seen, and trained on
