"""Which pictures a search finds in folders and archives, and the bytes of an archive's members."""

import gzip
import io
import os
import tarfile
import zipfile

import pytest
from PIL import Image

from search import archives
from search.archives import read_member
from search.files import find_files
from utils.errors import InputError


def picture(colour=(200, 30, 40), kind="PNG"):
    data = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(data, kind)
    return data.getvalue()


def zipped(path, contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in contents:
            opened.writestr(name, data)


def tarred(path, contents, mode="w"):
    with tarfile.open(path, mode) as opened:
        for name, data in contents:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))


def names(found, root):
    return [os.path.relpath(file.path, root) for file in found.files]


def test_folders_are_walked_and_what_is_hidden_or_no_picture_is_left_out(tmp_path):
    for name in ("b.png", "a/deep/er/c.JPG", "a/._c.jpg", ".cache/d.png", "__MACOSX/e.png", "notes.txt", "a/x.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture())
    found = find_files([tmp_path])
    assert names(found, tmp_path) == ["a/deep/er/c.JPG", "b.png"]
    assert found.left_out.startswith("2 files are no pictures by their names (")
    assert found.problems == []
    file, status = found.files[1], os.stat(tmp_path / "b.png")
    assert (file.size, file.modified, file.archive) == (status.st_size, status.st_mtime_ns, None)


def test_each_picture_comes_once_and_loops_of_links_end(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.png").write_bytes(picture())
    (tmp_path / "a_link").symlink_to(tmp_path / "real")
    (tmp_path / "real/loop").symlink_to(tmp_path)
    found = find_files([tmp_path, tmp_path / "real", tmp_path / "real/a.png", f"{tmp_path}/real/../real"])
    assert names(found, tmp_path) == ["real/a.png"]


def test_a_linked_folder_outside_is_looked_into(tmp_path):
    (tmp_path / "flights").mkdir()
    (tmp_path / "flights/a.png").write_bytes(picture())
    (tmp_path / "search").mkdir()
    (tmp_path / "search/linked").symlink_to(tmp_path / "flights")
    assert names(find_files([tmp_path / "search"]), tmp_path) == ["search/linked/a.png"]


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_members_of_archives_are_found_in_folders_and_alone_and_read(tmp_path, suffix):
    archive = tmp_path / f"flight.{suffix}"
    contents = [("./z.png", picture((1, 2, 3))), ("a/b\nc.png", picture((4, 5, 6))), ("read me.txt", b"x")]
    contents += [("__MACOSX/a/._b.png", b"shadow"), (".hidden/c.png", b"")]
    if suffix == "zip":
        zipped(archive, contents)
    else:
        tarred(archive, contents, "w:" + {"tgz": "gz", "tar": ""}.get(suffix, suffix[4:]))
    for root in (tmp_path, archive):
        found = find_files([root])
        assert [file.path for file in found.files] == [f"{archive}/z.png", f"{archive}/a/b\nc.png"]  # as they lie there
        assert found.problems == [] and "1 .txt" in found.left_out
    for file, data in zip(found.files, (picture((1, 2, 3)), picture((4, 5, 6))), strict=True):
        assert (file.archive, file.size) == (str(archive), len(data))
        assert file.modified == os.stat(archive).st_mtime_ns
        assert read_member(file.archive, file.member) == data
    assert read_member(found.files[0].archive, found.files[0].member) == picture((1, 2, 3))  # a step back


def test_a_compressed_tar_is_unpacked_once_by_who_reads_in_order(tmp_path, monkeypatch):
    archive = tmp_path / "many.tar.gz"
    tarred(archive, [(f"{i * 7919 % 50}.png", os.urandom(20_000)) for i in range(50)], "w:gz")
    found = find_files([archive])
    rewound, rewind = [], gzip._GzipReader._rewind
    monkeypatch.setattr(gzip._GzipReader, "_rewind", lambda reader: (rewound.append(1), rewind(reader)))
    for file in found.files:
        assert len(read_member(file.archive, file.member)) == 20_000
    in_order = len(rewound)
    read_member(found.files[0].archive, found.files[0].member)
    assert in_order <= 2 and len(rewound) > in_order  # opening looks which compression it is


def test_an_archive_that_was_changed_is_read_anew(tmp_path):
    archive = str(tmp_path / "a.zip")
    zipped(archive, [("a.png", b"old")])
    assert read_member(archive, "a.png") == b"old"
    zipped(archive, [("a.png", b"newer")])
    assert read_member(archive, "a.png") == b"newer"


def test_what_cannot_be_looked_into_is_named_and_the_rest_found(tmp_path):
    (tmp_path / "good.png").write_bytes(picture())
    (tmp_path / "broken.zip").write_bytes(b"PK no zip")
    (tmp_path / "broken.tar.gz").write_bytes(b"no gzip")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    tarred(tmp_path / "cut.tar", [("a.png", picture()), ("b.png", os.urandom(5000))])
    (tmp_path / "cut.tar").write_bytes((tmp_path / "cut.tar").read_bytes()[:3000])
    found = find_files([tmp_path])
    assert names(found, tmp_path)[0] == "cut.tar/a.png" and names(found, tmp_path)[-1] == "good.png"
    problems = {os.path.relpath(path, tmp_path): reason for path, reason in found.problems}
    assert sorted(problems) == ["broken.tar.gz", "broken.zip", "cut.tar", "gone.png", "pipe.png"]
    assert all("damaged, cut short or of another kind" in problems[name] for name in ("broken.zip", "cut.tar"))
    assert "no regular file" in problems["pipe.png"] and "No such file" in problems["gone.png"]
    assert not any("\n" in reason for reason in problems.values())


def test_a_damaged_header_within_a_tar_is_no_quiet_end(tmp_path):
    tarred(tmp_path / "a.tar", [("a.png", picture()), ("b.png", picture())])
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[1024:1100] = b"x" * 76
    (tmp_path / "a.tar").write_bytes(data)
    found = find_files([tmp_path])
    assert names(found, tmp_path) == ["a.tar/a.png"]
    assert "damaged" in found.problems[0][1]


def test_an_unreadable_folder_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").write_bytes(picture())
    scandir = os.scandir

    def refusing(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    found = find_files([tmp_path])
    assert names(found, tmp_path) == ["a.png"]
    assert found.problems == [(str(tmp_path / "closed"), "cannot be read: Permission denied")]


def test_strange_names_are_found_or_named(tmp_path):
    for name in (b"line\nbreak.png", b" space .png", "é中🛰.png".encode(), b"bad\xff.png"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as stream:
            stream.write(picture())
    os.mkdir(os.path.join(os.fsencode(tmp_path), b"folder\xfe"))
    found = find_files([tmp_path])
    assert names(found, tmp_path) == [" space .png", "line\nbreak.png", "é中🛰.png"]
    assert sorted(os.path.relpath(path, tmp_path) for path, _ in found.problems) == ["bad\\udcff.png", "folder\\udcfe"]
    assert all(path.encode() and "not UTF-8" in reason for path, reason in found.problems)


def test_a_root_whose_name_is_not_utf_8_is_refused(tmp_path):
    root = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"flights\xff"))
    os.mkdir(root)
    with pytest.raises(InputError, match=r"flights\\udcff: its name is not UTF-8, rename it"):
        find_files([root])


def test_members_that_are_not_to_be_read_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MEMBER_BYTES", 10_000)
    zipped(
        tmp_path / "a.zip", [("big.png", bytes(10_001)), ("../out.png", b"x"), ("fine.png", b"x"), ("./fine.png", b"x")]
    )
    data = bytearray()
    zipped(tmp_path / "locked.zip", [("a.png", b"x")])
    data += (tmp_path / "locked.zip").read_bytes()
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of encryption, in both headers
        data[data.index(signature) + place] |= 1
    (tmp_path / "locked.zip").write_bytes(data)
    with tarfile.open(tmp_path / "links.tar", "w") as opened:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            opened.addfile(info)
    found = find_files([tmp_path])
    assert names(found, tmp_path) == ["a.zip/fine.png"]
    problems = {os.path.relpath(path, tmp_path): reason for path, reason in found.problems}
    assert set(problems) == {"a.zip/big.png", "out.png", "a.zip/fine.png", "locked.zip/a.png"}
    assert "larger than 10,000 bytes" in problems["a.zip/big.png"] and "encrypted" in problems["locked.zip/a.png"]
    assert "leads out of" in problems["out.png"] and "twice" in problems["a.zip/fine.png"]
    for name in ("big.png", "missing.png"):
        with pytest.raises(InputError, match=rf"cannot read '{name}' in the archive"):
            read_member(str(tmp_path / "a.zip"), name)


def test_a_tar_that_unpacks_beyond_all_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_LEAST_UNPACKED", 1000)
    tarred(tmp_path / "bomb.tar.xz", [("a.png", b"x"), ("zeros.bin", bytes(10_000_000)), ("b.png", b"x")], "w:xz")
    found = find_files([tmp_path])
    assert names(found, tmp_path) == ["bomb.tar.xz/a.png"]
    assert "unpacks to more than 200 times its size" in found.problems[0][1]


def test_a_member_with_more_than_it_declares_is_no_more_than_an_error(tmp_path):
    zipped(tmp_path / "a.zip", [("a.png", bytes(1_000_000))])
    data = (tmp_path / "a.zip").read_bytes().replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"cannot read 'a\.png' in the archive"):
        read_member(str(tmp_path / "a.zip"), "a.png")


def test_roots_that_are_nothing_to_look_into_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="nowhere is missing"):
        find_files([tmp_path / "nowhere"])
    with pytest.raises(InputError, match=r"notes\.txt is no folder, and no zip or tar archive or picture"):
        find_files([tmp_path / "notes.txt"])


def test_nothing_found_tells_what_was_there(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no picture is found in .*empty: there is no file"):
        find_files([tmp_path / "empty"])
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "b.zip").write_bytes(b"x")
    with pytest.raises(InputError, match=r"1 files are no pictures.*1 \.csv.*1 problem: .*b\.zip: it is damaged"):
        find_files([tmp_path])
