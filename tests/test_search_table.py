"""The index: appended to, updated, interrupted, shared by processes; what is no index is refused in one line."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from small_index import ABOUT, DIM, axis, index_of, record, row, square

from search import neighbours
from search.columns import any_of, literal
from search.table import create, open_index
from utils.errors import InputError
from utils.output import unlock

ROOT = Path(__file__).parents[1]
STRANGE = ["it's.png", "back\\slash.png", "two\nlines.png", "\U0001f3df️.png", 'a"b%_.png', "tab\t'; DROP TABLE x --"]


def test_what_was_added_is_found_again_by_another_reader(tmp_path):
    tiles = [(row("/p/a.png", footprint=square(10, 50)), axis(0)), (row("/p/b.png"), axis(1))]
    index_of(tmp_path, *tiles)
    index = open_index(tmp_path / "index")
    best, other = index.nearest(axis(0, 0.3), 5).to_pylist()
    assert len(index) == 2
    assert (best["path"], other["path"]) == ("/p/a.png", "/p/b.png")
    assert best["score"] == pytest.approx(np.cos(0.3), abs=1e-6)
    assert (best["longitude"], best["latitude"], best["west"], best["north"]) == (10.5, 50.5, 10, 51)
    assert best["footprint"] == "POLYGON ((10 50, 11 50, 11 51, 10 51, 10 50))"
    assert other["footprint"] is None and other["west"] is None
    assert index.files() == {path: record(path) for path in ("/p/a.png", "/p/b.png")}


def test_what_an_index_was_made_with_is_kept(tmp_path):
    rule = ABOUT.picture_rule._replace(deep="percentile 2-98", bands=(3, 2, 1))
    about = replace(ABOUT, picture_rule=rule, tiling=replace(ABOUT.tiling, metres=100.0), average_orientations=True)
    create(tmp_path / "index", about)
    kept = open_index(tmp_path / "index").about
    assert replace(kept, created="") == about
    assert kept.created.startswith("20")


@pytest.mark.parametrize("name", STRANGE)
def test_any_name_is_found_and_removed_alone(tmp_path, name):
    index = index_of(tmp_path, (row(f"/p/{name}"), axis(0)), (row("/p/other"), axis(1)))
    assert index.count(f"path = {literal(f'/p/{name}')}") == 1
    index.remove([f"/p/{name}"])
    assert list(index.files()) == ["/p/other"]
    assert [found["path"] for found in index.nearest(axis(0), 5).to_pylist()] == ["/p/other"]


def test_a_literal_says_what_it_was_given():
    assert literal("it's \\ \n \U0001f3df") == "'it''s \\ \n \U0001f3df'"
    assert any_of("path", ["a'", "b"]) == "path IN ('a''', 'b')"


def test_thousands_of_files_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("search.table.PATHS_AT_ONCE", 700)
    paths = [f"/p/it's {i}.png" for i in range(3000)]
    index = create(tmp_path / "index", ABOUT)
    index.add([row(path) for path in paths], np.tile(axis(0), (3000, 1)), [record(path) for path in paths])
    index.remove(paths[:-1])
    assert list(index.files()) == paths[-1:]
    assert len(index) == 1


def test_a_changed_file_is_removed_then_added(tmp_path):
    index = index_of(tmp_path, (row(size=1), axis(0)))
    index.remove(["/p/a.tif"])
    index.add([row(size=2)], axis(3)[None], [record("/p/a.tif", size=2)])
    again = open_index(tmp_path / "index")
    assert again.files() == {"/p/a.tif": record("/p/a.tif", size=2)}
    assert [found["size"] for found in again.nearest(axis(3), 5).to_pylist()] == [2]


def test_a_broken_file_has_a_record_and_no_tiles(tmp_path):
    index = create(tmp_path / "index", ABOUT)
    broken = record("/p/a.png", rows=0, error="it is cut short")
    index.add([], np.empty((0, DIM)), [broken])
    assert index.files() == {"/p/a.png": broken}
    assert len(index) == 0
    assert index.nearest(axis(0), 5).to_pylist() == []


def test_a_run_killed_between_tiles_and_record_is_recognised(tmp_path):
    index = index_of(tmp_path, (row("/p/done.tif"), axis(0)))
    windows = [(0, 0, 8, 8), (6, 0, 8, 8)]
    index.add([row("/p/cut.tif", window=w, whole=False, modified=7) for w in windows], np.stack([axis(1), axis(2)]))
    again = open_index(tmp_path / "index", writing=True)
    assert again.unrecorded() == {"/p/cut.tif"}
    assert again.present("/p/cut.tif", 1, 7) == set(windows)
    assert again.present("/p/cut.tif", 1, 8) == set()  # the file has changed since
    assert again.present("/p/done.tif", 1, 1) == set()  # has its record
    assert again.present("/p/new.tif", 1, 1) == set()


def test_embeddings_that_do_not_fit_are_refused_and_nothing_is_added(tmp_path):
    index = create(tmp_path / "index", ABOUT)
    with pytest.raises(InputError, match=r"embeddings are \[1, 4\], not \[N, 8\]"):
        index.add([row()], np.ones((1, 4)))
    with pytest.raises(InputError, match=r"gives '/p/a.tif' an embedding that is not finite"):
        index.add([row()], np.full((1, DIM), np.nan))
    assert len(index) == 0


def test_a_name_that_is_no_text_is_one_line(tmp_path):
    with pytest.raises(InputError, match="UnicodeEncodeError"):
        create(tmp_path / "index", ABOUT).add([row("/p/\udcff.png")], axis(0)[None])


# ---- two writers ----

WRITER = """
import sys
from search.table import open_index
index = open_index(sys.argv[1], writing=True)
index.lock()
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_second_writer_is_refused_naming_the_first_and_readers_are_not(tmp_path):
    index = index_of(tmp_path, (row(), axis(0)))
    unlock(tmp_path / "index")
    command = [sys.executable, "-c", WRITER, str(tmp_path / "index")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match=rf"in use by another run \(process {first.pid} on .*\); .*another folder"):
            index.lock()
        assert len(open_index(tmp_path / "index").nearest(axis(0), 5)) == 1
        first.communicate()
    index.lock()


def test_an_index_is_locked_while_it_is_made(tmp_path):
    create(tmp_path / "index", ABOUT)
    command = [sys.executable, "-c", WRITER, str(tmp_path / "index")]
    second = subprocess.run(command, cwd=ROOT, input="", capture_output=True, text=True)
    assert f"in use by another run (process {os.getpid()} on " in second.stderr and second.returncode == 1


APPENDER = """
import sys
import numpy as np
sys.path.insert(0, "tests")
from small_index import axis, record, row
from search.table import open_index
index = open_index(sys.argv[1], writing=True)
for i in range(5):
    path = f"/p/{sys.argv[2]}_{i}.png"
    index.add([row(path)], axis(i)[None], [record(path)])
"""


def test_processes_of_one_run_append_side_by_side(tmp_path):
    index = index_of(tmp_path, (row(), axis(0)))
    command = [sys.executable, "-c", APPENDER, str(tmp_path / "index")]
    both = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("one", "two")]
    assert [process.wait() for process in both] == [0, 0]
    index.finish()  # of the process that opened it before them
    assert len(index) == len(index.files()) == 11
    assert len(open_index(tmp_path / "index")) == 11


def test_an_index_at_a_uri_is_used_without_a_lock(tmp_path):
    uri = f"file://{tmp_path}/index"
    index = create(uri, ABOUT)
    index.lock()
    index.add([row()], axis(0)[None], [record("/p/a.tif")])
    index.finish()
    assert open_index(uri, writing=True).nearest(axis(0), 5)["path"].to_pylist() == ["/p/a.tif"]
    assert not (tmp_path / "index" / ".lock").exists()
    with pytest.raises(InputError, match="is no index"):
        open_index(f"file://{tmp_path}/none")


# ---- what is no index ----


def test_a_missing_index_a_file_and_another_folder_are_told_apart(tmp_path):
    with pytest.raises(InputError, match=r"there is no index .*/none; make one with Search.py index"):
        open_index(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="there is no index"):
        open_index(tmp_path / "file")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(InputError, match=r"/pictures is no index; name the folder"):
        open_index(tmp_path / "pictures")


def test_an_index_is_made_only_where_nothing_else_is(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(InputError, match=r"it holds 'photo.jpg'; name an empty folder"):
        create(tmp_path, ABOUT)
    create(tmp_path / "index", ABOUT)
    with pytest.raises(InputError, match="holds an index already"):
        create(tmp_path / "index", ABOUT)


def test_a_half_made_index_is_refused_and_made_again(tmp_path):
    create(tmp_path / "index", ABOUT)
    shutil.rmtree(tmp_path / "index" / "about.lance")
    with pytest.raises(InputError, match="is half-made, it lacks about; make it again"):
        open_index(tmp_path / "index")
    create(tmp_path / "index", ABOUT)
    assert len(open_index(tmp_path / "index")) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "is of version 2, not this program's 1; make it again"),
        ({"dim": "8"}, "says of itself what no index does: 1 problem: 'dim' is '8'"),
        ({"picture_rule_bands": 3, "strange": 0}, "no index does: 2 problems: unknown key 'strange'"),
        ({"dim": 4}, "has other columns than one of version 1"),
    ],
)
def test_an_index_of_another_version_or_kind_is_one_line(tmp_path, change, message):
    create(tmp_path / "index", ABOUT)
    table = lancedb.connect(tmp_path / "index").open_table("about")
    said = json.loads(table.to_arrow()["json"][0].as_py()) | change
    table.add(pa.table({"json": [json.dumps(said)]}), mode="overwrite")
    with pytest.raises(InputError, match=message):
        open_index(tmp_path / "index")


@pytest.mark.parametrize("said", ["", "[]", "[" * 100_000, '{"version": 1}'])
def test_an_index_that_does_not_say_what_it_was_made_with_is_one_line(tmp_path, said):
    create(tmp_path / "index", ABOUT)
    lancedb.connect(tmp_path / "index").open_table("about").add(pa.table({"json": [said]}), mode="overwrite")
    with pytest.raises(InputError, match="does not say what it was made with"):
        open_index(tmp_path / "index")


def test_a_damaged_index_is_one_line(tmp_path):
    index_of(tmp_path, (row(), axis(0)))
    for file in (tmp_path / "index" / "pictures.lance" / "data").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match=r"the index .*/index cannot be used: ") as raised:
        open_index(tmp_path / "index").nearest(axis(0), 5)
    assert "\n" not in str(raised.value) and not re.search(r"\.rs:\d", str(raised.value))


@pytest.fixture
def read_only_index():
    """An index in a folder that this process, root or not, may read and not write."""
    with tempfile.TemporaryDirectory() as folder:
        index_of(Path(folder), (row(), axis(0)))
        unlock(Path(folder) / "index")
        for path in [Path(folder), *Path(folder).rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(65534)  # as which the modes are binding
            yield Path(folder) / "index"
        finally:
            if root:
                os.seteuid(0)
            for path in [Path(folder), *Path(folder).rglob("*")]:
                path.chmod(0o755)


def test_a_read_only_index_is_searched_and_not_written(read_only_index):
    assert len(open_index(read_only_index).nearest(axis(0), 5)) == 1
    with pytest.raises(InputError, match=r"/index cannot be written \(Permission denied\)"):
        open_index(read_only_index, writing=True)
    with pytest.raises(InputError, match=r"cannot be made in .*/new \(Permission denied\)"):
        create(read_only_index / "new", ABOUT)
    with pytest.raises(InputError, match=r"/index cannot be written \(Permission denied\)"):
        open_index(read_only_index).lock()


def test_another_model_is_refused_naming_both(tmp_path):
    index = create(tmp_path / "index", ABOUT)
    index.check_model(ABOUT.weights_sha256, "outputs/model")
    with pytest.raises(InputError, match=r"made with 'outputs/model' \(sha256 ab.*\), not with outputs/other \(cdcd"):
        index.check_model("cd" * 32, "outputs/other")


# ---- many tiles ----


def vectors(count, seed=0):
    """Random unit vectors of 32 numbers."""
    found = np.random.default_rng(seed).standard_normal((count, 32), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def many(tmp_path, monkeypatch):
    """An index of 600 tiles that is large enough for approximate search."""
    monkeypatch.setattr(neighbours, "ANN_ROWS", 500)
    index = create(tmp_path / "index", replace(ABOUT, dim=32))
    index.add([row(f"/p/{i}") for i in range(600)], vectors(600))
    index.finish()
    return index


def test_a_small_index_is_searched_exactly(tmp_path):
    index = index_of(tmp_path, (row(), axis(0)))
    index.finish()
    assert index.about.recall is None
    assert index._pictures.list_indices() == []


def test_a_large_index_gets_an_approximate_search_of_known_recall(tmp_path, many):
    assert len(many._pictures.list_indices()) == 1
    assert open_index(tmp_path / "index").about.recall == many.about.recall >= 0.95


def test_an_exact_search_is_there_beside_the_approximate_one(many):
    wanted = vectors(1, seed=2)[0]
    found = many.nearest(wanted, 20, exact=True)
    scores = vectors(600) @ wanted
    assert found["path"].to_pylist() == [f"/p/{i}" for i in np.argsort(-scores)[:20]]
    assert found["score"].to_numpy() == pytest.approx(np.sort(scores)[::-1][:20], abs=1e-6)


def test_recall_is_counted_against_exact_search(many, monkeypatch):
    assert neighbours.recall(many._pictures) == 1
    real = neighbours.nearest
    monkeypatch.setattr(neighbours, "nearest", lambda *given, **options: real(*given, **options)[:6])
    assert neighbours.recall(many._pictures) == 0.5  # a search that finds itself and 5 of 10


@pytest.mark.parametrize("left", [0, 5])
def test_an_index_that_has_become_small_is_searched_exactly_again(many, left):
    many.remove([f"/p/{i}" for i in range(left, 600)])
    many.finish()
    assert many.about.recall is None
    assert many._pictures.list_indices() == []
    assert len(many.nearest(vectors(1)[0], 10)) == left


def test_tiles_that_are_alike_do_not_spoil_the_recall(tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "ANN_ROWS", 500)
    index = create(tmp_path / "index", replace(ABOUT, dim=32))
    index.add([row(f"/p/{i}") for i in range(600)], np.repeat(vectors(20), 30, axis=0))
    index.finish()
    assert index.about.recall == 1


def test_an_approximate_search_that_has_become_bad_is_built_again(many, monkeypatch):
    recalls = iter([0.5, 0.99])
    monkeypatch.setattr(neighbours, "recall", lambda table: next(recalls))
    many.finish()
    assert many.about.recall == 0.99


def test_tiles_added_after_the_approximate_search_was_built_are_found(many):
    added = vectors(5, seed=1)
    many.add([row(f"/q/{i}") for i in range(5)], added)
    assert [many.nearest(vector, 1)["path"][0].as_py() for vector in added] == [f"/q/{i}" for i in range(5)]
    many.finish()
    assert [many.nearest(vector, 1)["path"][0].as_py() for vector in added] == [f"/q/{i}" for i in range(5)]


def test_removed_tiles_are_not_found_by_an_approximate_search(many):
    many.remove(["/p/7"])
    found = many.nearest(vectors(600)[7], 600)
    assert len(found) == 599 and "/p/7" not in found["path"].to_pylist()


def test_an_approximate_search_keeps_to_a_condition(many):
    found = many.nearest(vectors(600)[0], 3, any_of("path", ["/p/5", "/p/6"]))
    assert set(found["path"].to_pylist()) == {"/p/5", "/p/6"}
