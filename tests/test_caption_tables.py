"""Tables of captions as people have them: separators, column names, several captions a row, absolute paths, quotes."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import Prepare
from dataset.classification import read_scenes
from tests.small_releases import entry, make_release, picture
from utils.errors import InputError
from utils.prior_config import PriorConfig

ROOT = Path(__file__).parents[1]
NAMES = ("a", "b", "c")
SPLIT = dict(zip(NAMES, ("train", "val", "test"), strict=True))


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "mine"
    place.mkdir()
    for name in NAMES:
        picture(name).save(place / f"{name}.jpg")
    return place


def prepared(folder, text, name="captions.csv", *more):
    (folder / name).write_bytes(text.encode())
    out = folder.parent / "out"
    Prepare.main(["--dataset", "folder", "--release", str(folder), "--output_dir", str(out), *more])
    return [(one["image"], one["caption"]) for one in json.loads((out / "folder_train.json").read_text())]


@pytest.mark.parametrize(("separator", "name"), [(",", "t.csv"), (";", "t.csv"), ("\t", "t.csv"), ("\t", "t.tsv")])
def test_a_table_may_have_other_separators(folder, separator, name):
    rows = [["image", "caption", "split"], *([f"{name}.jpg", f"park {name}", SPLIT[name]] for name in NAMES)]
    assert prepared(folder, "\n".join(separator.join(row) for row in rows), name) == [("a.jpg", "park a")]


@pytest.mark.parametrize("header", ["caption,caption", "caption_1,caption_2", "Caption1,Caption2", "caption,caption 2"])
def test_several_caption_columns_are_several_captions(folder, header):
    rows = [f"image,{header},split", "a.jpg,one,two,train", "b.jpg,one,,val", "c.jpg,x,y,test"]
    assert prepared(folder, "\n".join(rows)) == [("a.jpg", "one"), ("a.jpg", "two")]
    assert json.loads((folder.parent / "out/folder_val.json").read_text())[0]["caption"] == ["one"]


def test_columns_of_other_names_are_named_on_the_command_line(folder, capsys):
    rows = ["filename;text;subset", *(f"{name}.jpg;park {name};{SPLIT[name]}" for name in NAMES)]
    columns = ["--columns", "image=filename,caption=text,split=subset"]
    with pytest.raises(InputError, match="say with --columns image=NAME,caption=NAME which they are"):
        prepared(folder, "\n".join(rows))
    assert prepared(folder, "\n".join(rows), "captions.csv", *columns) == [("a.jpg", "park a")]
    lines = [json.dumps({"filename": f"{name}.jpg", "text": "park", "subset": SPLIT[name]}) for name in NAMES]
    (folder / "captions.csv").unlink()
    assert prepared(folder, "\n".join(lines), "captions.jsonl", *columns) == [("a.jpg", "park")]
    with pytest.raises(InputError, match="not of the form image=NAME"):
        prepared(folder, "", "captions.jsonl", "--columns", "picture=filename")


def test_absolute_paths_into_the_folder_are_found_in_it(folder):
    rows = ["image,caption,split", *(f"{folder}/{name}.jpg,park,{SPLIT[name]}" for name in NAMES)]
    assert prepared(folder, "\n".join(rows)) == [("a.jpg", "park")]


def test_a_quote_that_is_not_closed_is_named_where_it_opens(folder):
    rows = ["image,caption", 'a.jpg,"a park,\nwith trees"', 'b.jpg,"a lake', *(f"c.jpg,{i}" for i in range(50))]
    with pytest.raises(InputError, match=r"captions\.csv line 4 \(row 3\) is not CSV: a quote that opens in this row"):
        prepared(folder, "\n".join(rows))


def test_files_that_no_row_names_are_counted_by_suffix(folder, capsys):
    (folder / "d.heic").touch()
    (folder / "e.heic").touch()
    picture("f").save(folder / "f.jpg")
    prepared(folder, "\n".join(["image,caption,split", *(f"{n}.jpg,park,{SPLIT[n]}" for n in NAMES)]))
    assert "the table names none of 3 files (2 .heic, 1 .jpg): left out" in capsys.readouterr().out


def test_files_in_class_folders_that_are_no_pictures_are_counted_by_suffix(tmp_path, capsys):
    for scene in ("lake", "park"):
        (tmp_path / "set" / scene).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (4, 4)).save(tmp_path / "set" / scene / f"{number}.webp")
        (tmp_path / "set" / scene / "old.heic").touch()
    (tmp_path / "set/lake/Thumbs.db").touch()
    scenes = read_scenes(PriorConfig(class_folders=str(tmp_path / "set")))
    assert len(scenes.train + scenes.val + scenes.test) == 20
    assert "3 files are no pictures by their names (2 .heic, 1 .db): left out" in capsys.readouterr().out


def test_a_zip_with_backslashes_is_unpacked_into_folders(tmp_path):
    entries = [entry(f"beach_{i}.jpg", split) for i, split in enumerate(("train", "val", "test"))]
    release = make_release(tmp_path / "release", "rsicd", entries)
    with zipfile.ZipFile(tmp_path / "RSICD.zip", "w") as archive:
        for file in sorted(release.rglob("*.*")):
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = str(file.relative_to(tmp_path)).replace("/", "\\")
            archive.writestr(info, file.read_bytes())
    out = tmp_path / "out"
    Prepare.main(["--dataset", "rsicd", "--release", str(tmp_path / "RSICD.zip"), "--output_dir", str(out)])
    assert json.loads((out / "rsicd_train.json").read_text())[0]["image"] == "beach_0.jpg"


def test_a_zip_with_backslashes_may_not_lead_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = info.orig_filename = "..\\..\\evil.txt"
        archive.writestr(info, "x")
    arguments = ["--dataset", "rsicd", "--release", str(tmp_path / "bad.zip"), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(InputError, match="a path that leads out of it"):
        Prepare.main(arguments)


def test_a_console_without_the_characters_ends_no_run(folder):
    rows = ["image,caption,split,label", *(f"{name}.jpg,park,{SPLIT[name]},公园" for name in NAMES)]
    (folder / "captions.csv").write_text("\n".join(rows), encoding="utf-8")
    out = folder.parent / "公园"
    command = [sys.executable, "Prepare.py", "--dataset", "folder", "--release", str(folder), "--output_dir", str(out)]
    environment = {"PYTHONIOENCODING": "latin-1", "PATH": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\\u516c\\u56ed" in done.stdout
