"""`Search.py`: pictures to an index, questions to answers."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import lancedb
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin
from rasterio.warp import transform

import Search
from models import load
from search import indexing
from search.table import Index, open_index
from tests.tiny_folder import picture, write_model, write_pictures
from utils.errors import InputError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "run", batch_size_test=2)


@pytest.fixture
def search(model, monkeypatch, capsys):
    """`search(command, ...)`: its exit code and what it printed, in this process and without workers."""

    def run(command, *arguments):
        embeds = ["--num_workers", "0"] if command in ("index", "embed") else []
        here = ["--device", "cpu", *embeds] if command in ("index", "embed", "query") else []
        if command in ("index", "embed") and "--checkpoint" not in arguments:
            here += ["--checkpoint", str(model)]
        monkeypatch.setattr(sys, "argv", ["Search.py", command, *map(str, arguments), *here])
        capsys.readouterr()
        code = Search.main()
        return code, capsys.readouterr()

    return run


@pytest.fixture
def places(tmp_path):
    """Five pictures, and where an index of them may go."""
    write_pictures(tmp_path / "pictures", 5)
    return tmp_path / "pictures", tmp_path / "index"


def found(printed):
    return [Path(hit["path"]).name for hit in json.loads(printed.out)]


def test_a_picture_is_found_by_itself_and_words_find_something(search, places):
    pictures, index = places
    assert search("index", "--images", pictures, "--index", index)[0] == 0
    code, printed = search("query", "--index", index, "--image", pictures / "3.png", "--json", "--keep_duplicates")
    hits = json.loads(printed.out)
    assert code == 0
    assert len(hits) == 5
    assert hits[0]["path"] == str(pictures / "3.png")
    assert hits[0]["score"] == pytest.approx(1, abs=1e-4)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    _, printed = search("query", "--index", index, "a lake beside a road", "--top", "2", "--keep_duplicates")
    assert len(printed.out.splitlines()) == 3  # heads and two pictures


def test_the_scores_are_the_models_own(search, places, model):
    pictures, index = places
    search("index", "--images", pictures, "--index", index)
    _, printed = search("query", "--index", index, "a lake beside a road", "--json", "--keep_duplicates")
    files = sorted(pictures.iterdir())
    wanted = load(model).embed_images(files) @ load(model).embed_texts(["a lake beside a road"])[0]
    given = {hit["path"]: hit["score"] for hit in json.loads(printed.out)}
    np.testing.assert_allclose([given[str(file)] for file in files], wanted, atol=1e-4)


def test_a_second_run_embeds_what_is_new_or_changed_and_drops_what_vanished(search, places, monkeypatch):
    pictures, index = places
    search("index", "--images", pictures, "--index", index)
    embedded, whole = [], Index.add
    monkeypatch.setattr(Index, "add", lambda self, rows, *rest: (embedded.extend(rows), whole(self, rows, *rest)))
    search("index", "--images", pictures, "--index", index)
    assert embedded == []
    Image.fromarray(picture(7)).save(pictures / "new.png")
    Image.fromarray(picture(8)).save(pictures / "1.png")
    (pictures / "4.png").unlink()
    _, printed = search("index", "--images", pictures, "--index", index)
    assert "1 to embed, 1 changed, 1 vanished" in printed.out
    assert sorted(Path(row.file.path).name for row in embedded) == ["1.png", "new.png"]
    assert {Path(path).name for path in open_index(index).files()} == {"0.png", "1.png", "2.png", "3.png", "new.png"}
    assert len(open_index(index)) == 5


def test_another_folder_is_appended_and_takes_nothing_away(search, places, tmp_path):
    pictures, index = places
    search("index", "--images", pictures, "--index", index)
    write_pictures(tmp_path / "others", 2)
    search("index", "--images", tmp_path / "others", "--index", index)
    assert len(open_index(index)) == 7


def test_an_interrupted_indexing_goes_on_where_it_was(search, places, monkeypatch):
    pictures, index = places
    monkeypatch.setattr(indexing, "FLUSH_ROWS", 2)
    whole, calls = Index.add, []

    def killed(self, rows, vectors, files=()):
        calls.append(len(rows))
        if len(calls) == 2:
            whole(self, rows, vectors)  # the rows are there, their files' records are not
            raise KeyboardInterrupt
        whole(self, rows, vectors, files)

    monkeypatch.setattr(Index, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        search("index", "--images", pictures, "--index", index)
    monkeypatch.setattr(Index, "add", whole)
    assert (len(open_index(index)), len(open_index(index).files())) == (4, 1)
    embedded = []
    monkeypatch.setattr(Index, "add", lambda self, rows, *rest: (embedded.extend(rows), whole(self, rows, *rest)))
    assert search("index", "--images", pictures, "--index", index)[0] == 0
    assert [row.file.path for row in embedded] == [str(pictures / "4.png")]
    assert (len(open_index(index)), len(open_index(index).files())) == (5, 5)


def test_broken_pictures_are_named_and_the_exit_code_says_so(search, places):
    pictures, index = places
    (pictures / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    code, printed = search("index", "--images", pictures, "--index", index)
    assert code == Search.SOME_BROKEN
    assert f"left out: {pictures / '2.png'}" in printed.err
    assert len(open_index(index)) == 4
    assert search("index", "--images", pictures, "--index", index)[0] == Search.SOME_BROKEN  # still
    code, printed = search("check", "--index", index)
    assert code == Search.SOME_BROKEN
    assert "2.png: cannot be read" in printed.out


def test_an_index_without_a_single_row_is_gone_on_with(search, places):
    pictures, index = places
    broken = pictures.parent / "broken.png"
    broken.write_bytes(b"")
    assert search("index", "--images", broken, "--index", index)[0] == Search.SOME_BROKEN
    assert search("index", "--images", pictures, "--index", index)[0] == 0
    assert len(open_index(index)) == 5


def test_what_cannot_be_read_now_has_not_vanished(search, tmp_path):
    archive = tmp_path / "pictures" / "flight.zip"
    write_pictures(archive.parent, 1)
    with zipfile.ZipFile(archive, "w") as file:
        file.write(archive.parent / "0.png", "inside.png")
    search("index", "--images", archive.parent, "--index", tmp_path / "index")
    archive.write_bytes(archive.read_bytes()[:50])  # as while it is copied
    code, printed = search("index", "--images", archive.parent, "--index", tmp_path / "index")
    assert (code, len(open_index(tmp_path / "index"))) == (Search.SOME_BROKEN, 2)
    assert "0 vanished" in printed.out


def test_a_folder_that_is_gone_is_dropped_by_name(search, places):
    pictures, index = places
    search("index", "--images", pictures, "--index", index)
    for file in pictures.iterdir():
        file.unlink()
    with pytest.raises(InputError, match="no picture is found"):
        search("index", "--images", pictures, "--index", index)
    assert len(open_index(index)) == 5
    search("index", "--drop", pictures, "--index", index)
    assert len(open_index(index)) == 0
    with pytest.raises(InputError, match="has nothing under"):
        search("index", "--drop", pictures, "--index", index)


def test_a_picture_is_looked_for_as_the_index_shows_pictures(search, tmp_path):
    deep = tmp_path / "deep.tif"
    values = picture(1).transpose(2, 0, 1).astype(np.uint16) * 40
    with rasterio.open(deep, "w", driver="GTiff", width=64, height=64, count=3, dtype="uint16") as file:
        file.write(values)
    search("index", "--images", deep, "--index", tmp_path / "index", "--orientations", 8, "--stretch", "minmax")
    _, printed = search("query", "--index", tmp_path / "index", "--image", deep, "--json")
    assert json.loads(printed.out)[0]["score"] == pytest.approx(1, abs=1e-4)


def test_a_table_of_another_program_is_not_overwritten(search, places):
    pictures, index = places
    lancedb.connect(index).create_table("pictures", [{"mine": 1}])
    with pytest.raises(InputError, match="another program's table"):
        search("index", "--images", pictures, "--index", index)
    assert lancedb.connect(index).open_table("pictures").to_arrow()["mine"].to_pylist() == [1]


def test_a_sheet_has_a_blank_where_a_picture_is_gone(search, places, tmp_path):
    pictures, index = places
    search("index", "--images", pictures, "--index", index)
    (pictures / "2.png").unlink()
    code, printed = search("query", "--index", index, "a lake", "--sheet", tmp_path / "s.png", "--keep_duplicates")
    assert code == 0
    assert "2.png" in printed.err
    assert (tmp_path / "s.png").exists()


def test_check_tells_changed_and_vanished_pictures(search, places):
    pictures, index = places
    search("index", "--images", pictures, "--index", index)
    assert search("check", "--index", index)[0] == 0
    os.utime(pictures / "0.png", (1, 1))
    (pictures / "1.png").unlink()
    code, printed = search("check", "--index", index, "--json")
    assert code == Search.SOME_BROKEN
    assert json.loads(printed.out)["not_current"] == {
        str(pictures / "0.png"): "changed",
        str(pictures / "1.png"): "vanished",
    }


def test_an_archive_is_searched_without_unpacking(search, tmp_path):
    with zipfile.ZipFile(tmp_path / "flight.zip", "w") as archive:
        for file in write_pictures(tmp_path / "pictures", 3):
            archive.write(file, f"day one/{file.name}")
    search("index", "--images", tmp_path / "flight.zip", "--index", tmp_path / "index")
    _, printed = search("query", "--index", tmp_path / "index", "--image", tmp_path / "pictures/1.png", "--json")
    assert json.loads(printed.out)[0]["path"] == f"{tmp_path}/flight.zip/day one/1.png"
    assert search("check", "--index", tmp_path / "index")[0] == 0
    sheet = tmp_path / "sheet.png"
    search("query", "--index", tmp_path / "index", "a lake", "--sheet", sheet)
    assert Image.open(sheet).size[0] > 224


def test_what_is_planted_in_a_raster_is_found_at_its_place(search, tmp_path):
    land = np.full((3, 640, 640), 90, np.uint8)
    planted = picture(3, 128, 128)
    land[:, 384:512, 192:320] = planted.transpose(2, 0, 1)
    raster = tmp_path / "land.tif"
    grid = from_origin(500_000, 5_400_000, 1, 1)  # metres, from a corner in zone 32
    with rasterio.open(
        raster, "w", driver="GTiff", width=640, height=640, count=3, dtype="uint8", crs="EPSG:32632", transform=grid
    ) as file:
        file.write(land)
    Image.fromarray(planted).save(tmp_path / "planted.png")
    search(
        "index",
        "--images",
        raster,
        "--index",
        tmp_path / "index",
        "--tile",
        128,
        "--overlap",
        0.5,
        "--whole_up_to",
        256,
    )
    asked = ["query", "--index", tmp_path / "index", "--image", tmp_path / "planted.png", "--top", "1"]
    _, printed = search(*asked, "--json")
    window = json.loads(printed.out)[0]["window"]
    assert (window["column"], window["row"]) == (192, 384)
    _, printed = search(*asked, "--geojson")
    (feature,) = json.loads(printed.out)["features"]
    west, south = np.min(feature["geometry"]["coordinates"][0], axis=0)
    east, north = np.max(feature["geometry"]["coordinates"][0], axis=0)
    (longitude,), (latitude,) = transform("EPSG:32632", "EPSG:4326", [500_256], [5_399_552])  # its middle
    assert west < longitude < east
    assert south < latitude < north
    near = ["--near", longitude, latitude, 50]
    assert json.loads(search(*asked, *near, "--json")[1].out)[0]["window"] == window
    assert json.loads(search(*asked, "--box", "8", "48", "8.9", "49", "--json")[1].out) == []


def test_several_queries_are_answered_at_once(search, places, tmp_path):
    pictures, index = places
    search("index", "--images", pictures, "--index", index)
    (tmp_path / "queries.txt").write_text("a lake\n\na road beside a river\n")
    _, printed = search("query", "--index", index, "--queries", tmp_path / "queries.txt", "--json", "--top", "1")
    assert [answer["query"] for answer in json.loads(printed.out)] == ["a lake", "a road beside a river"]
    output = tmp_path / "answer.csv"
    search("query", "--index", index, "a lake", "--output", output)
    assert output.read_text().startswith("query,rank,score,path")


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_embed_writes_the_models_embeddings_to_one_file(search, places, model, tmp_path, kind):
    pictures, _ = places
    output = tmp_path / f"embeddings.{kind}"
    assert search("embed", "--images", pictures, "--output", output)[0] == 0
    if kind == "npz":
        with np.load(output, allow_pickle=False) as arrays:
            paths, vectors = arrays["path"].tolist(), arrays["embedding"]
    else:
        table = pq.read_table(output)
        paths, vectors = table["path"].to_pylist(), np.array(table["embedding"].to_pylist())
    np.testing.assert_allclose(vectors, load(model).embed_images(paths), atol=1e-5)
    assert [Path(path).name for path in paths] == [f"{number}.png" for number in range(5)]


def test_another_model_than_the_indexs_is_refused(search, places, tmp_path):
    pictures, index = places
    search("index", "--images", pictures, "--index", index)
    other = write_model(tmp_path / "other", temp1=0.05)
    for command in (("index", "--images", pictures), ("query", "a lake")):
        with pytest.raises(InputError, match=r"was made with .*run. \(sha256 \w+\), not with .*other"):
            search(*command, "--index", index, "--checkpoint", other)


def test_other_settings_than_the_indexs_are_refused_and_open_ones_are_its_own(search, places):
    pictures, index = places
    search("index", "--images", pictures, "--index", index, "--tile", 256)
    assert search("index", "--images", pictures, "--index", index)[0] == 0
    with pytest.raises(InputError, match=r"was made with --tile 256, not 128"):
        search("index", "--images", pictures, "--index", index, "--tile", 128)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["query", ""], "empty"),
        (["query"], "nothing to look for"),
        (["query", "a lake", "--index", "nowhere"], "there is no index nowhere"),
        (["query", "a lake", "--top", "0"], "--top 0"),
        (["query", "a lake", "--since", "yesterday"], "no date"),
        (["query", "a lake", "--box", "0", "0", "0", "nan"], "finite"),
        (["query", "🏟 体育场"], "knows no word"),
        (["index", "--images", "nowhere"], "nowhere is missing"),
        (["index", "--images", "."], "no picture is found"),
        (["embed", "--images", ".", "--output", "x.txt"], "must end in .npz or .parquet"),
        (["embed", "--images", ".", "--output", "gone/x.npz"], "the folder gone for x.npz is missing"),
        (["query", "a lake", "--sheet", "gone/x.png"], "the folder gone for x.png is missing"),
        (["embed", "--output", "x.npz"], "--images is missing"),
    ],
)
def test_mistakes_are_one_line(search, places, tmp_path, monkeypatch, arguments, said):
    pictures, index = places
    search("index", "--images", pictures, "--index", index)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InputError, match=said) as raised:
        search(*arguments, *(["--index", index] if arguments[0] == "query" and "--index" not in arguments else []))
    assert "\n" not in str(raised.value)


def test_words_that_the_model_does_not_know_are_named_and_long_texts_cut(search, places):
    pictures, index = places
    search("index", "--images", pictures, "--index", index)
    code, printed = search("query", "--index", index, "a lake 🏟 beside a road")
    assert code == 0
    assert "🏟" in printed.err
    code, printed = search("query", "--index", index, "lake " * 10_000)
    assert code == 0
    assert "10000 words" in printed.err


def test_two_processes_embed_each_its_share(model, places):
    pictures, index = places
    command = [sys.executable, str(ROOT / "Search.py"), "index", "--images", str(pictures), "--index", str(index)]
    command += ["--checkpoint", str(model), "--dist", "cpu2", "--num_workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(Path(path).name for path in open_index(index).files()) == [f"{number}.png" for number in range(5)]
    assert len(open_index(index)) == 5
    assert "5 tiles embedded" in done.stdout
    query = [sys.executable, str(ROOT / "Search.py"), "query", "--index", str(index), "a lake", "--json"]
    answered = subprocess.run(query, capture_output=True, text=True)
    assert json.loads(answered.stdout)[0]["path"].endswith(".png")


def test_a_mistake_is_told_before_anything_heavy_is_imported():
    code = "import sys, search.arguments; print(sorted({'torch', 'lancedb', 'rasterio', 'timm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
