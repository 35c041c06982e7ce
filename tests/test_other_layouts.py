"""Data sets in other layouts than the released one's: NWPU-Captions, Karpathy's JSON, pairs, parquet, img2dataset."""

import io
import json
import tarfile

import pyarrow
import pyarrow.parquet
import pytest

import Prepare
from dataset.shard_loader import ShardDataset
from dataset.shards import IMG2DATASET_INDEX, read_shards
from dataset.transforms import train_transform
from tests.small_releases import picture
from utils.errors import InputError

SPLITS = ("train", "val", "test")


def prepared(dataset, release, tmp_path, *more):
    out = tmp_path / "out"
    Prepare.main(["--dataset", dataset, "--release", str(release), "--output_dir", str(out), *more])
    return {split: json.loads((out / f"{dataset}_{split}.json").read_text()) for split in SPLITS}


def save(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    picture(file.name).save(file)


@pytest.mark.parametrize("place", ["NWPU_images/{scene}", "images", "."])
def test_nwpu_captions_are_read_with_their_classes(tmp_path, place):
    content = {}
    for scene in ("airplane", "lake"):
        content[scene] = []
        for number, split in enumerate(SPLITS, 1):
            name = f"{scene}_{number:03d}.jpg"
            captions = {key: f"{scene} {key}" for key in ("raw", "raw_1", "raw_2", "raw_3", "raw_4")}
            content[scene].append({**captions, "filename": name, "split": split, "imgid": 0})
            save(tmp_path / "release" / place.format(scene=scene) / name)
    (tmp_path / "release/dataset_nwpu.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    entries = prepared("nwpu", tmp_path / "release", tmp_path)
    assert [entry["caption"] for entry in entries["train"][:2]] == ["airplane raw", "airplane raw_1"]
    assert {(entry["label"], entry["label_name"]) for entry in entries["train"]} == {(0, "airplane"), (1, "lake")}
    assert len(entries["train"]) == 10 and len(entries["test"]) == 2 and len(entries["test"][0]["caption"]) == 5
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["defects"]["names_other_case"]["count"] == 0


def test_what_is_wrong_in_nwpu_captions_is_named(tmp_path):
    (tmp_path / "dataset_nwpu.json").write_text(json.dumps({"lake": [{"raw": "x", "filename": 1, "split": "train"}]}))
    with pytest.raises(InputError, match="lake 1: filename 1 is not the name of a file"):
        prepared("nwpu", tmp_path, tmp_path)
    (tmp_path / "dataset_nwpu.json").write_text(json.dumps({"lake": [3]}))
    with pytest.raises(InputError, match="lake 1 lacks its file name"):
        prepared("nwpu", tmp_path, tmp_path)


def test_karpathy_s_layout_of_any_set_is_read(tmp_path):
    images = []
    for number, split in enumerate(("train", "restval", "val", "test")):
        images.append({"filepath": "val2014", "filename": f"{number}.jpg", "split": split, "sentences": [{"raw": "a"}]})
        save(tmp_path / "release/images/val2014" / f"{number}.jpg")
        save(tmp_path / "release/images/other" / f"{number}.jpg")
    (tmp_path / "release/dataset_any.json").write_text(json.dumps({"images": images}))
    entries = prepared("karpathy", tmp_path / "release", tmp_path)
    assert [entry["image"] for entry in entries["train"]] == ["images/val2014/0.jpg", "images/val2014/1.jpg"]
    with pytest.raises(InputError, match="no published split"):
        prepared("karpathy", tmp_path / "release", tmp_path, "--split", "published")


@pytest.mark.parametrize("a_name_each", [True, False])
def test_pairs_of_captions_and_file_names_are_read(tmp_path, a_name_each):
    for split, of in (("train", "ab"), ("val", "c"), ("test", "d")):
        for name in of:
            save(tmp_path / "release/images" / f"{name}.jpg")
        captions = [f"{name} {number}" for name in of for number in range(2)]
        (tmp_path / f"release/{split}_caps.txt").write_text("\n".join(captions) + "\n")
        names = [f"{name}.jpg" for name in of for _ in range(2 if a_name_each else 1)]
        (tmp_path / f"release/{split}_filename.txt").write_text("\n".join(names) + "\n")
    entries = prepared("pairs", tmp_path / "release", tmp_path)
    assert [(entry["caption"], entry["image"]) for entry in entries["train"]] == [
        (f"{name} {number}", f"images/{name}.jpg") for name in "ab" for number in range(2)
    ]
    assert entries["val"] == [{"image": "images/c.jpg", "caption": ["c 0", "c 1"]}]
    (tmp_path / "release/train_caps.txt").write_text("a\nb\nc\n")
    (tmp_path / "release/train_filename.txt").write_text("a.jpg\nb.jpg\n")
    with pytest.raises(InputError, match=r"2 names and .*train_caps\.txt 3 captions"):
        prepared("pairs", tmp_path / "release", tmp_path)


def parquet(file, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def row(name, captions=("a park", "a lake")):
    content = io.BytesIO()
    picture(name).save(content, "JPEG")
    image = {"bytes": content.getvalue(), "path": name}
    return {"filename": f"rsicd_images/{name}", "captions": list(captions), "image": image}


def test_parquet_files_of_the_hub_are_read_with_their_pictures(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    for split, names in (("train", ["a.jpg", "b.jpg"]), ("valid", ["c.jpg"]), ("test", ["d.jpg"])):
        parquet(tmp_path / f"data/{split}-00000-of-00001-abc.parquet", [row(name) for name in names])
    entries = prepared("parquet", tmp_path, tmp_path)
    assert [(entry["caption"], entry["image"]) for entry in entries["train"][:2]] == [
        ("a park", "a.jpg"),
        ("a lake", "a.jpg"),
    ]
    assert (tmp_path / "out/pictures/c.jpg").read_bytes() == row("c.jpg")["image"]["bytes"]
    assert "use_affil_loss=False" in capsys.readouterr().out
    prepared("parquet", tmp_path, tmp_path)
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"filename": "a.jpg", "captions": ["x"]}], "row 1 has no image with its bytes"),
        ([row("a.jpg") | {"filename": "../../a.sh"}], "no name of a picture"),
        ([row("a.jpg"), row("a.jpg")], "row 2: the picture 'a.jpg' is in an earlier row"),
        (None, "is no parquet file"),
    ],
)
def test_what_is_wrong_in_a_parquet_file_is_named(tmp_path, rows, problem):
    file = tmp_path / "train-0.parquet"
    if rows is None:
        file.write_bytes(b"PAR1 no more")
    else:
        parquet(file, rows)
    with pytest.raises(InputError, match=problem):
        prepared("parquet", file, tmp_path)


def img2dataset(folder, shard, count, text=True):
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / f"{shard:05d}.tar", "w") as opened:
        for number in range(count):
            content = io.BytesIO()
            picture(f"{shard} {number}").save(content, "JPEG")
            said = json.dumps({"caption": f"Park {number}.", "key": "0", "status": "success"}).encode()
            members = {"jpg": content.getvalue(), "json": said} | ({"txt": f"Park {number}.".encode()} if text else {})
            for kind, data in members.items():
                info = tarfile.TarInfo(f"{shard:05d}{number:04d}.{kind}")
                info.size = len(data)
                opened.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("text", [True, False])
def test_img2dataset_s_shards_are_trained_on(tmp_path, text):
    for shard, count in enumerate((3, 5)):
        img2dataset(tmp_path / "got", shard, count, text)
    shards = read_shards([f"{tmp_path}/got/{{00000..00001}}.tar"], labels_required=False)
    assert [(shard.pictures, shard.captions) for shard in shards] == [(3, 3), (5, 5)]
    options = {"batch_size": 4, "captions_per_image": 1, "seed": 0, "rank": 0, "world_size": 1}
    items = list(ShardDataset(shards, train_transform(16), **options, labels_required=False))
    assert sorted(item.records[0].caption for item in items) == sorted(
        [f"park {n}" for n in range(3)] + [f"park {n}" for n in range(5)]
    )
    assert (tmp_path / "got" / IMG2DATASET_INDEX).is_file()
    assert len(read_shards([f"{tmp_path}/got/00001.tar"], labels_required=False)) == 1
    with pytest.raises(InputError, match="without a label"):
        read_shards([f"{tmp_path}/got/00001.tar"], labels_required=True)


def test_an_img2dataset_shard_that_is_missing_is_named(tmp_path):
    img2dataset(tmp_path / "got", 0, 2)
    with pytest.raises(InputError, match=r"00001\.tar is missing, 2 of 3 shards are"):
        read_shards([f"{tmp_path}/got/{{00000..00002}}.tar"], labels_required=False)
    assert not (tmp_path / "got" / IMG2DATASET_INDEX).exists()
