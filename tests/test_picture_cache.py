"""The picture cache: the very pixels, made once, gone on with after an interruption, refused when something changed."""

import errno
import json
import os
import pickle
import shutil
import sys
import threading
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

import run
from dataset import cache as picture_cache
from dataset.annotations import EvaluationSet, TrainRecord
from dataset.cache import INDEX, PIXELS, PictureCache
from dataset.evaluation_loaders import evaluation_images_loader
from dataset.loaders import train_loader
from dataset.pictures import load_picture
from dataset.transforms import evaluation_transform, train_transform
from tests.processes import run_on_processes
from tests.test_retrieval_data import same
from tests.test_retrieval_data import tokenizer as tokenizer  # a fixture
from utils.errors import InputError


@pytest.fixture
def root(tmp_path):
    """Six pictures in two folders, each of a size of its own, some not JPEG or not RGB."""
    for i in range(6):
        file = tmp_path / "pictures" / str(i % 2) / f"{i}{('.jpg', '.png', '.tif')[i % 3]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.RandomState(i).randint(0, 256, (20 + 3 * i, 31 - 2 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert("L" if i == 4 else "RGB").save(file)
    return tmp_path / "pictures"


@pytest.fixture
def pictures(root):
    return sorted(str(file) for file in root.glob("*/*"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def opened(folder, root, pictures):
    cache = PictureCache(folder, root)
    cache.open(pictures)
    return cache


def holds(cache, pictures):
    return all(np.array_equal(cache.load(picture), load_picture(picture)) for picture in pictures)


def counted(monkeypatch):
    """The pictures decoded from now on."""
    decoded = []
    decode = picture_cache.decode_picture
    monkeypatch.setattr(picture_cache, "decode_picture", lambda data, path: decoded.append(path) or decode(data, path))
    return decoded


def test_cached_pictures_are_the_very_pixels_in_their_own_sizes(folder, root, pictures):
    cache = opened(folder, root, pictures)
    assert holds(cache, pictures)
    assert len({cache.load(picture).shape for picture in pictures}) == 6
    assert (folder / PIXELS).stat().st_size == sum(load_picture(picture).nbytes for picture in pictures)
    with pytest.raises(ValueError, match="read-only"):
        cache.load(pictures[0])[:] = 0


def test_each_picture_is_decoded_once(monkeypatch, folder, root, pictures):
    decoded = counted(monkeypatch)
    opened(folder, root, pictures[:4] * 2)  # as captions name them
    opened(folder, root, pictures[:3])
    assert sorted(decoded) == pictures[:4]
    cache = opened(folder, root, pictures)  # as another run needs more
    assert sorted(decoded) == pictures and holds(cache, pictures)


def test_a_cache_serves_wherever_the_pictures_are_mounted(monkeypatch, folder, root, pictures):
    opened(folder, root, pictures)
    decoded = counted(monkeypatch)
    elsewhere = shutil.copytree(root, root.parent / "elsewhere")  # with the dates
    assert holds(opened(folder, elsewhere, [str(elsewhere / "0" / "0.jpg")]), [str(elsewhere / "0" / "0.jpg")])
    assert not decoded


def test_an_interrupted_cache_is_gone_on_with(monkeypatch, folder, root, pictures):
    decode, decoded = picture_cache.decode_picture, []

    def interrupted(data, path):
        if len(decoded) == 3:
            raise KeyboardInterrupt
        decoded.append(path)
        return decode(data, path)

    monkeypatch.setattr(picture_cache, "decode_picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opened(folder, root, pictures)
    with (folder / PIXELS).open("ab") as pixels, (folder / INDEX).open("ab") as index:
        pixels.write(b"half a picture")
        index.write(b'{"image": "half a line')
    monkeypatch.setattr(picture_cache, "decode_picture", decode)
    again = counted(monkeypatch)
    cache = opened(folder, root, pictures)
    assert sorted(again + decoded) == pictures and len(again) == 3
    assert holds(cache, pictures) and holds(opened(folder, root, pictures), pictures)


def refused(folder, root, pictures):
    with pytest.raises(InputError) as told:
        opened(folder, root, pictures)
    assert "\n" not in str(told.value) and str(folder) in str(told.value)
    return str(told.value)


def test_a_file_of_the_size_and_date_it_had_is_not_read_again(monkeypatch, folder, root, pictures):
    opened(folder, root, pictures)
    monkeypatch.setattr(picture_cache, "read_file", lambda path: pytest.fail(f"{path} was read"))
    opened(folder, root, pictures)


def test_changed_pictures_are_refused(folder, root, pictures):
    opened(folder, root, pictures)
    os.utime(pictures[0])  # another date alone is no change
    opened(folder, root, pictures)
    Image.open(pictures[0]).rotate(180).save(pictures[0])
    line = refused(folder, root, pictures)
    assert f"1 pictures are not those it was made from, {pictures[0]} first" in line and "remove it" in line
    opened(folder, root, pictures[1:])  # nobody asks for the changed one


def test_a_changed_picture_of_the_same_size_is_told_by_its_checksum(folder, root, pictures):
    opened(folder, root, pictures)
    with open(pictures[-1], "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    assert "not those it was made from" in refused(folder, root, pictures)


def test_another_file_of_the_same_name_size_and_date_is_told_by_its_checksum(folder, root, pictures):
    opened(folder, root, pictures)
    other = shutil.copytree(root, root.parent / "other")  # with the dates
    picture = other / os.path.relpath(pictures[0], root)
    date, content = picture.stat().st_mtime_ns, bytearray(picture.read_bytes())
    content[-1] ^= 1
    picture.write_bytes(content)
    os.utime(picture, ns=(date, date))
    assert "not those it was made from" in refused(folder, other, [str(picture)])


def test_a_damaged_cache_is_refused(folder, root, pictures):
    opened(folder, root, pictures)
    whole = (folder / PIXELS).read_bytes()
    for damaged, told in (
        (whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], "the pixels of"),
        (whole[:-1], "cut short"),
    ):
        (folder / PIXELS).write_bytes(damaged)
        assert told in refused(folder, root, pictures)
    (folder / PIXELS).unlink()
    assert "or gone" in refused(folder, root, pictures)
    (folder / PIXELS).write_bytes(whole)
    (folder / INDEX).unlink()
    assert "without index.jsonl" in refused(folder, root, pictures)


@pytest.mark.parametrize(
    "line", ["[]", "{", "[" * 100_000, json.dumps({"format": 0}), None, '{"image": "x"}', '{"image": 3, "offset": -1}']
)
def test_an_index_of_something_else_is_refused(folder, root, pictures, line):
    opened(folder, root, pictures)
    header, *lines = (folder / INDEX).read_text().splitlines()
    first = json.loads(lines[0])
    changed = json.dumps(first | {"offset": -5}) if line is None else line
    content = [changed, *lines] if line in ("[]", "{") or (line or "").startswith('{"format') else [header, changed]
    (folder / INDEX).write_text("\n".join(content) + "\n")
    assert "is no index" in refused(folder, root, pictures)


def test_a_full_disk_is_told_before_decoding_and_while_writing(monkeypatch, folder, root, pictures):
    decoded = counted(monkeypatch)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(picture_cache.shutil, "disk_usage", lambda _: usage(1000))
    line = refused(folder, root, pictures)
    assert "needs 0.0 MiB where 0.0 MiB are free" in line and not decoded
    monkeypatch.undo()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(picture_cache, "decode_picture", full)  # where the writing would stand
    assert "cannot be written (No space left on device)" in refused(folder, root, pictures)
    monkeypatch.undo()
    assert holds(opened(folder, root, pictures), pictures)


def test_a_picture_that_cannot_be_read_is_named(folder, root, pictures):
    (root / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"cannot read the picture .*bad.jpg"):
        opened(folder, root, [*pictures, str(root / "bad.jpg")])


def test_a_second_run_waits_for_the_one_that_fills(monkeypatch, capsys, folder, root, pictures):
    decode, decoded, reached, go_on = picture_cache.decode_picture, [], threading.Event(), threading.Event()

    def slow(data, path):
        reached.set()
        assert go_on.wait(20)
        decoded.append(path)
        return decode(data, path)

    monkeypatch.setattr(picture_cache, "decode_picture", slow)
    first = threading.Thread(target=opened, args=(folder, root, pictures))
    first.start()
    assert reached.wait(20)
    threading.Timer(0.2, go_on.set).start()
    cache = opened(folder, root, pictures)
    first.join()
    assert "waiting for another run" in capsys.readouterr().out
    assert sorted(decoded) == pictures and holds(cache, pictures)


def test_a_process_that_is_not_forked_maps_the_file_itself(folder, root, pictures):
    cache = opened(folder, root, pictures)
    holds(cache, pictures)
    sent = pickle.dumps(cache)
    assert len(sent) < 2000 < (folder / PIXELS).stat().st_size
    assert holds(pickle.loads(sent), pictures)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loaders_give_the_same_batches_from_the_cache(folder, root, pictures, tokenizer, num_workers):
    cache = opened(folder, root, pictures)
    records = [TrainRecord(f"w{i}", picture, i, 0, None) for i, picture in enumerate(pictures)]
    evaluation_set = EvaluationSet(tuple(pictures), (), [], None)
    batches = []
    for load in (load_picture, cache.load):
        loader = train_loader(
            records,
            transform=train_transform(16),
            tokenizer=tokenizer,
            batch_size=3,
            num_workers=num_workers,
            seed=0,
            max_length=9,
            load=load,
        )
        if load != load_picture:
            root.rename(root.parent / "gone")  # no file is asked for again
        loader.set_epoch(1)
        evaluated = evaluation_images_loader(evaluation_set.images, evaluation_transform(16), 4, num_workers, load=load)
        batches.append((list(loader), [batch.images.tolist() for batch in evaluated]))
    assert same(batches[0][0], batches[1][0]) and batches[0][1] == batches[1][1]


def filled(folder, root, pictures):
    """On one of several processes: whether the cache is right, and how many pictures this process decoded."""
    decode, decoded = picture_cache.decode_picture, []
    picture_cache.decode_picture = lambda data, path: decoded.append(path) or decode(data, path)
    cache = opened(folder, root, pictures)
    picture_cache.decode_picture = decode
    return holds(cache, pictures), len(decoded)


def test_process_0_decodes_for_all(folder, root, pictures):
    assert run_on_processes(2, filled, folder, root, pictures) == [(True, 6), (True, 0)]


def test_the_launcher_passes_the_folder_on(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py"])
    run.main(["--task", "itr_demo", "--dist", "cpu", "--dry_run", "--cache", "some/folder"])
    assert "--cache some/folder" in capsys.readouterr().out
    with pytest.raises(InputError, match="--cache is for retrieval"):
        run.main(["--task", "prior_aid", "--dist", "cpu", "--dry_run", "--cache", "some/folder"])
