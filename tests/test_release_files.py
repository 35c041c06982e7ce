"""Releases as folders and archives."""

import io
import json
import os
import shutil
import stat
import tarfile
import zipfile

import pytest

import Prepare
from dataset.releases.picture_index import PictureIndex
from tests.small_releases import entry, make_release
from utils.errors import InputError
from utils.files import leads_outside


@pytest.fixture
def release(tmp_path):
    entries = [entry(f"beach_{number}.jpg", split) for number, split in enumerate(("train", "val", "test"), 1)]
    return make_release(tmp_path / "RSICD", "rsicd", entries)


def prepare(release, output_dir):
    return Prepare.main(["--dataset", "rsicd", "--release", str(release), "--output_dir", str(output_dir)])


def told(release, output_dir):
    with pytest.raises(InputError) as error:
        prepare(release, output_dir)
    assert not output_dir.exists() or not any(output_dir.iterdir())
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
@pytest.mark.parametrize("top", [True, False], ids=["one top folder", "none"])
def test_an_archive_stands_for_its_folder(release, tmp_path, kind, top, capsys):
    where = {"root_dir": tmp_path, "base_dir": "RSICD"} if top else {"root_dir": release}
    archive = shutil.make_archive(str(tmp_path / "archive"), kind, **where)
    prepare(archive, tmp_path / "out")
    inside = tmp_path / "out" / "release" / ("RSICD" if top else "")
    assert f"image_root={inside / 'images'}" in capsys.readouterr().out
    prepare(release, tmp_path / "plain")
    for split in ("train", "val", "test"):
        name = f"rsicd_{split}.json"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["image_root"].startswith("release/")


def test_a_second_run_of_an_archive_finds_its_output_done(release, tmp_path, capsys):
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", release)
    prepare(archive, tmp_path / "out")
    unpacked = (tmp_path / "out" / "release").stat().st_mtime_ns
    capsys.readouterr()
    prepare(archive, tmp_path / "out")
    assert "nothing to do" in capsys.readouterr().out
    assert (tmp_path / "out" / "release").stat().st_mtime_ns == unpacked


def test_another_archive_does_not_replace_what_is_unpacked(release, tmp_path):
    first = shutil.make_archive(str(tmp_path / "first"), "zip", release)
    second = shutil.make_archive(str(tmp_path / "second"), "tar", release)
    prepare(first, tmp_path / "out")
    with pytest.raises(InputError, match="was not unpacked from"):
        prepare(second, tmp_path / "out")


def test_the_shadow_files_of_a_mac_do_not_hide_the_top_folder(release, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", root_dir=tmp_path, base_dir="RSICD")
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("__MACOSX/RSICD/._dataset_rsicd.json", b"\0")
    prepare(archive, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "release").glob("[!.]*")] == ["RSICD"]


def test_an_archive_with_a_wrong_release_leaves_nothing(release, tmp_path):
    (release / "dataset_rsicd.json").write_text('{"images": [{"filen')
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", release)
    assert "not JSON, or is cut short" in told(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_that_is_cut_short_is_told(release, tmp_path, kind):
    archive = tmp_path / shutil.make_archive(str(tmp_path / "archive"), kind, release)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    assert "cut short" in told(archive, tmp_path / "out")


def test_a_damaged_member_is_told(release, tmp_path):
    archive = tmp_path / shutil.make_archive(str(tmp_path / "archive"), "zip", release)
    content = bytearray(archive.read_bytes())
    content[200] ^= 0xFF
    archive.write_bytes(content)
    assert "damaged or cut short" in told(archive, tmp_path / "out")


def test_a_file_that_is_no_archive_is_told(tmp_path):
    (tmp_path / "release.rar").write_bytes(b"Rar!" + bytes(100))
    assert "is no folder, zip or tar archive" in told(tmp_path / "release.rar", tmp_path / "out")


@pytest.mark.parametrize("name", ["../escaped.txt", "/escaped.txt", "a/../../escaped.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_path_leads_out_of_an_archive(tmp_path, name, kind):
    archive = tmp_path / "archive"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr(name, b"escaped")
    else:
        with tarfile.open(archive, "w") as opened:
            member = tarfile.TarInfo(name)
            member.size = 7
            opened.addfile(member, io.BytesIO(b"escaped"))
    assert "a path that leads out of it" in told(archive, tmp_path / "out")
    assert not list(tmp_path.rglob("escaped.txt"))


@pytest.mark.parametrize("kind", ["zip", "symbolic", "inside", "hard", "device"])
def test_links_and_devices_in_an_archive_are_refused(tmp_path, kind):
    archive = tmp_path / "archive"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as opened:
            link = zipfile.ZipInfo("images")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            opened.writestr(link, "/etc")
    else:
        with tarfile.open(archive, "w") as opened:
            link = tarfile.TarInfo("images")
            link.type = {"hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}.get(kind, tarfile.SYMTYPE)
            link.linkname = "pictures" if kind == "inside" else "/etc"
            opened.addfile(link)
    assert "a link or device" in told(archive, tmp_path / "out")


def test_an_archive_larger_than_the_disk_is_told_before_it_is_unpacked(release, tmp_path, monkeypatch):
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", release)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))
    assert "the disk has 0.0 GiB left" in told(archive, tmp_path / "out")


@pytest.mark.parametrize("damage", ["trailer", "checksum"])
def test_the_checksum_of_a_compressed_tar_is_checked(release, tmp_path, damage):
    archive = tmp_path / shutil.make_archive(str(tmp_path / "archive"), "gztar", release)
    content = archive.read_bytes()
    wrong = bytes([content[-8] ^ 0xFF])
    archive.write_bytes(content[:-8] if damage == "trailer" else content[:-8] + wrong + content[-7:])
    assert "damaged or cut short" in told(archive, tmp_path / "out")


def test_a_tar_with_a_damaged_header_is_told(release, tmp_path):
    archive = tmp_path / shutil.make_archive(str(tmp_path / "archive"), "tar", release)
    with tarfile.open(archive) as opened:
        last = opened.getmembers()[-1].offset
    content = bytearray(archive.read_bytes())
    content[last] ^= 0xFF
    archive.write_bytes(content)
    assert "a header is damaged" in told(archive, tmp_path / "out")


def tar_with(archive, **pax_headers):
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as opened:
        member = tarfile.TarInfo("plain.txt")
        member.pax_headers = {key.replace("__", "."): value for key, value in pax_headers.items()}
        opened.addfile(member)


@pytest.mark.parametrize("odd", ["zip name", "NUL in a path", "sparse header"])
def test_a_malformed_archive_is_told(tmp_path, odd):
    archive = tmp_path / "archive"
    if odd == "zip name":
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr("é.jpg", b"x")
        archive.write_bytes(archive.read_bytes().replace("é".encode(), b"\xff\xff"))
    elif odd == "NUL in a path":
        tar_with(archive, path="a\0b")
    else:
        tar_with(archive, GNU__sparse__size="many", GNU__sparse__map="x,y")
    assert "damaged or cut short" in told(archive, tmp_path / "out")


@pytest.mark.parametrize("change", ["a file missing", "a file shorter"])
def test_a_damaged_copy_is_unpacked_again(release, tmp_path, change, capsys):
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", release)
    prepare(archive, tmp_path / "out")
    file = tmp_path / "out" / "release" / "images" / "beach_2.jpg"
    whole = file.read_bytes()
    if change == "a file missing":
        file.unlink()
    else:
        file.write_bytes(whole[:-1])
    prepare(archive, tmp_path / "out")
    assert f"unpacking {archive} again" in capsys.readouterr().out
    assert file.read_bytes() == whole


def test_what_a_killed_run_had_unpacked_is_removed(release, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", release)
    (tmp_path / "out" / ".release.123" / "images").mkdir(parents=True)
    prepare(archive, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_comes_twice_is_told(tmp_path, kind):
    (tmp_path / "a.txt").write_text("a")
    archive = tmp_path / "archive"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as opened:
            opened.write(tmp_path / "a.txt", "a.txt")
            opened.write(tmp_path / "a.txt", "./a.txt")
    else:
        with tarfile.open(archive, "w") as opened:
            opened.add(tmp_path / "a.txt", "a.txt")
            opened.add(tmp_path / "a.txt", "a.txt")
    assert "a.txt' twice" in told(archive, tmp_path / "out")


def test_an_archive_of_nothing_or_of_an_archive_is_told(release, tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "empty.zip holds no file" in told(tmp_path / "empty.zip", tmp_path / "out")
    inner = shutil.make_archive(str(tmp_path / "inner"), "zip", release)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as opened:
        opened.write(inner, "inner.zip")
    assert "holds nothing but the archive 'inner.zip'" in told(tmp_path / "outer.zip", tmp_path / "out")


def test_what_is_wrong_in_an_archive_is_told_of_the_archive(release, tmp_path):
    (release / "dataset_rsicd.json").unlink()
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", release)
    assert f"cannot read {archive}/images/dataset_rsicd.json: no such file" in told(archive, tmp_path / "out")


def test_a_subfolder_that_may_not_be_listed_is_told(release, monkeypatch):
    below = release / "images" / "below"
    below.mkdir()
    scandir = os.scandir

    def forbidden(path):
        if os.fspath(path) == str(below):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(InputError, match=rf"cannot list {below}: Permission denied"):
        PictureIndex(release / "images")


def test_only_regular_files_are_pictures(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    if not (tmp_path / "A.JPG").exists():  # a disk that tells cases apart
        assert PictureIndex(tmp_path).find("A.JPG") is None
    with pytest.raises(InputError, match=rf"{tmp_path / 'a.jpg'}: it is no regular file"):
        PictureIndex(tmp_path).find("a.jpg")


def test_pictures_are_found_whatever_their_case_where_one_fits(tmp_path):
    (tmp_path / "below").mkdir()
    for name in ("A.JPG", "b.jpg", "below/C.Jpg", "é.jpg"):
        (tmp_path / name).touch()
    index = PictureIndex(tmp_path)
    assert index.find("a.jpg") == "A.JPG"
    assert index.find("./b.jpg") == "b.jpg"
    assert index.find("below/c.jpg") == "below/C.Jpg"
    assert index.find("e\u0301.jpg") == "é.jpg"  # the accent as a sign of its own
    assert index.find("d.jpg") is index.find("../x.jpg") is None
    if not (tmp_path / "a.jpg").exists():  # a disk that tells cases apart
        (tmp_path / "a.jpg").touch()
        index = PictureIndex(tmp_path)
        assert (index.find("a.jpg"), index.find("A.JPG"), index.find("A.jpg")) == ("a.jpg", "A.JPG", None)


@pytest.mark.parametrize(("name", "outside"), [("a/../b", False), ("..", True), ("a/../../b", True), ("/a", True)])
def test_paths_that_lead_outside(name, outside):
    assert leads_outside(name) is outside
