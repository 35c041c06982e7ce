"""Training from tar shards: what is written, what is read by whom, and what goes wrong."""

import io
import json
import tarfile
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import multiprocessing

from dataset.captions import clean_caption
from dataset.releases.shard_writer import check_suffixes, known_shards, write_shards
from dataset.shard_loader import shard_loader
from dataset.shards import read_shards
from dataset.transforms import evaluation_transform, train_transform
from tests.processes import run_on_processes
from tests.test_retrieval_data import same
from tests.test_retrieval_data import tokenizer as tokenizer  # a fixture
from utils import processes
from utils.errors import InputError

PICTURES, PER_SHARD = 23, 5  # the last shard holds 3
CAPTIONS = [1 + i % 3 for i in range(PICTURES)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Pictures 0.png to 22.png (every third a JPEG), picture i of grey 10 * i."""
    root = tmp_path_factory.mktemp("pictures")
    for i in range(PICTURES):
        Image.fromarray(np.full((20, 20, 3), 10 * i, np.uint8)).save(root / file_name(i))
    return root


def file_name(i):
    return f"{i}.{'JPG' if i % 3 == 0 else 'png'}"


@pytest.fixture(scope="module")
def entries():
    """Caption c of picture i is `w{i}` and c + 1 more words."""
    return [
        {"caption": f"W{i}!" + " w39" * (c + 1), "image": file_name(i), "image_id": 7 * i, "label": i % 4}
        for i in range(PICTURES)
        for c in range(CAPTIONS[i])
    ]


@pytest.fixture(scope="module")
def pattern(entries, root, tmp_path_factory):
    return write_shards(entries, root, tmp_path_factory.mktemp("shards"), "birds", PER_SHARD)


@pytest.fixture
def loader(pattern, tokenizer):
    """`shard_loader` with what most tests share."""
    return partial(
        shard_loader,
        read_shards([pattern], labels_required=True),
        transform=evaluation_transform(16),
        tokenizer=tokenizer,
        batch_size=4,
        seed=5,
        max_length=40,
        labels_required=True,
    )


def epoch(loader, number):
    loader.set_epoch(number)
    return list(loader)


def seen(batches):
    return Counter(caption for batch in batches for caption in batch.captions)


def test_the_pattern_names_every_shard_and_the_index_says_what_is_in_it(pattern, entries, root):
    assert pattern.endswith("/birds-{000000..000004}.tar")
    shards = read_shards([pattern], labels_required=True)
    assert [shard.pictures for shard in shards] == [5, 5, 5, 5, 3]
    assert [shard.first_picture for shard in shards] == [0, 5, 10, 15, 20]
    assert sum(shard.captions for shard in shards) == len(entries)
    found = {}
    for shard in shards:
        with tarfile.open(shard.file) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        for name in (name for name in members if name.endswith(".json")):
            said = json.loads(members[name])
            suffix = said["image"].lower().rpartition(".")[2]
            assert members[f"{name[:-5]}.{suffix}"] == (root / said["image"]).read_bytes()  # not encoded again
            found[said["image_id"]] = said
    assert len(found) == PICTURES and list(found) != sorted(found)  # mixed, since training mixes neighbours only
    for entry in entries:
        assert entry["caption"] in found[entry["image_id"]]["captions"]
        assert entry["label"] == found[entry["image_id"]]["label"]


def test_the_same_entries_give_the_same_bytes(pattern, entries, root, tmp_path):
    write_shards(entries, root, tmp_path, "birds", PER_SHARD)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [*(f"birds-{i:06d}.tar" for i in range(5)), "birds.json"]
    assert all(file.read_bytes() == (Path(pattern).parent / file.name).read_bytes() for file in files)


def test_shards_that_are_there_are_not_replaced(entries, root, tmp_path):
    write_shards(entries, root, tmp_path, "birds", PER_SHARD)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"birds.json is there already"):
        write_shards(entries, root, tmp_path, "birds", 20)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_known_shards_are_those_of_the_index(entries, root, tmp_path):
    assert known_shards(tmp_path / "birds.json") == []
    write_shards(entries, root, tmp_path, "birds", 20)
    names = ["birds.json", "birds-000000.tar", "birds-000001.tar"]
    assert known_shards(tmp_path / "birds.json") == [tmp_path / name for name in names]


@pytest.mark.parametrize("edit", ["no index", "another file"])
def test_an_edited_index_knows_no_shards(entries, root, tmp_path, edit):
    write_shards(entries, root, tmp_path, "birds", 20)
    text = (tmp_path / "birds.json").read_text()
    (tmp_path / "birds.json").write_text("[]" if edit == "no index" else text.replace("birds-000001.tar", "mine.tar"))
    with pytest.raises(InputError, match="something other than the index"):
        known_shards(tmp_path / "birds.json")


def test_pictures_that_shards_do_not_hold_are_told():
    check_suffixes(["a.jpg", "b.TIF"])
    with pytest.raises(InputError, match=r"2 problems: 'a.pgm'; 'b'; leave --shards out"):
        check_suffixes(["a.pgm", "b", "c.png"])


def test_shards_that_are_not_whole_have_no_index(monkeypatch, entries, root, tmp_path):
    monkeypatch.setattr(
        "dataset.releases.shard_writer.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full"))
    )
    with pytest.raises(InputError, match=r"cannot write shards to .*: disk full"):
        write_shards(entries, root, tmp_path, "birds", PER_SHARD)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image": "../0.JPG"}, "outside"),
        ({"image": "/etc/hosts"}, "outside"),
        ({"image": "absent.png"}, "absent.png"),
        ({"caption": "?!"}, "no word"),
        ({"image_id": 7}, "belongs to"),
    ],
)
def test_entries_that_training_would_refuse_are_not_written(entries, root, tmp_path, change, told):
    with pytest.raises(InputError, match=told) as error:
        write_shards([*entries, entries[0] | {"image_id": 1000} | change], root, tmp_path / "new", "birds")
    assert "\n" not in str(error.value) and f"entry {len(entries) + 1}" in str(error.value)
    assert not (tmp_path / "new").exists()


def test_an_entry_without_a_field_is_told(root, tmp_path):
    with pytest.raises(InputError, match="entry 1 has no 'image_id'"):
        write_shards([{"caption": "a", "image": file_name(0)}], root, tmp_path, "birds")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_released_an_epoch_has_every_caption_once_but_the_last_partial_batch(loader, entries, num_workers):
    for number in range(3):
        batches = epoch(loader(num_workers=num_workers), number)
        assert len(batches) == len(entries) // 4
        assert set(seen(batches).values()) == {1} and len(seen(batches)) == len(batches) * 4


def test_a_batch_holds_what_its_pictures_say(loader, tokenizer):
    of_picture = {}
    for batch in epoch(loader(), 0):
        assert batch.images.shape == (4, 3, 16, 16) and batch.images.dtype == torch.uint8
        assert tokenizer.batch_decode(batch.ids, skip_special_tokens=True) == batch.captions
        for image, caption, idx, label in zip(batch.images, batch.captions, batch.idx, batch.label, strict=True):
            number = int(caption.split()[0][1:])  # cleaned: "w3", not "W3!"
            assert abs(int(image[0, 0, 0]) - 10 * number) < 4 and label == number % 4
            of_picture.setdefault(int(idx), set()).add(number)
    assert all(len(numbers) == 1 for numbers in of_picture.values()) and len(of_picture) > PICTURES - 4


@pytest.mark.parametrize("captions_per_image", [2, 5])
def test_several_captions_of_a_picture_stand_together(loader, captions_per_image):
    batches = epoch(loader(captions_per_image=captions_per_image), 1)
    assert len(batches) == PICTURES // 4
    numbers = [int(caption.split()[0][1:]) for batch in batches for caption in batch.captions]
    groups = [numbers[i : i + captions_per_image] for i in range(0, len(numbers), captions_per_image)]
    assert all(len(set(group)) == 1 for group in groups) and len({group[0] for group in groups}) == len(groups)


def test_captions_that_are_stored_side_by_side_are_spread(loader, pattern):
    one = read_shards([pattern.replace("{000000..000004}", "000000")], labels_required=True)
    make = partial(shard_loader, one, **loader.keywords | {"batch_size": 1})
    orders = [[int(batch.idx[0]) for batch in epoch(make(), number)] for number in range(4)]
    turns = [sum(a != b for a, b in pairwise(order)) for order in orders]  # 4 or 5 where no caption were moved
    assert max(turns) > 5


@pytest.mark.parametrize("captions_per_image", [1, 2])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_repeats_whatever_ran_before_it_and_differs_from_the_next(loader, captions_per_image, num_workers):
    options = {
        "captions_per_image": captions_per_image,
        "num_workers": num_workers,
        "transform": train_transform(16, quarter_turns=True),
    }
    first = loader(**options)
    epochs = [epoch(first, number) for number in range(3)]
    torch.manual_seed(99)
    assert same(epochs[2], epoch(loader(**options), 2))
    assert not same(epochs[1], epochs[2])
    assert not same(epochs[2], epoch(loader(**options | {"seed": 6}), 2))


def test_an_item_is_augmented_alike_however_many_workers_and_processes_there_are(loader):
    def augmented(**options):
        batches = epoch(loader(transform=train_transform(16), **options), 3)
        return {c: i.tolist() for batch in batches for c, i in zip(batch.captions, batch.images, strict=True)}

    alone, workers = augmented(), augmented(num_workers=2)
    assert alone == workers
    part = augmented(rank=1, world_size=2)
    assert all(alone.get(caption, image) == image for caption, image in part.items())
    assert len(part.keys() & alone.keys()) > 12


@pytest.mark.parametrize("captions_per_image", [1, 2])
@pytest.mark.parametrize(("world_size", "num_workers"), [(2, 2), (3, 0), (7, 1)])  # 7 processes, 5 shards
def test_processes_share_an_epoch_without_loss_but_for_what_falls_off_the_end(
    loader, entries, captions_per_image, world_size, num_workers
):
    items = len(entries) if captions_per_image == 1 else PICTURES
    options = {"batch_size": 1, "captions_per_image": captions_per_image, "world_size": world_size}
    for number in range(2):
        parts = [epoch(loader(rank=rank, num_workers=num_workers, **options), number) for rank in range(world_size)]
        assert {len(part) for part in parts} == {items // world_size}
        counts = Counter(
            batch.captions[0] if captions_per_image == 1 else int(batch.idx[0]) for part in parts for batch in part
        )
        assert set(counts.values()) == {1} and len(counts) == items // world_size * world_size


def test_what_falls_off_the_end_is_something_else_in_each_epoch(loader, entries):
    captions = {clean_caption(entry["caption"]) for entry in entries}
    lost = {frozenset(captions - seen(epoch(loader(batch_size=20), number)).keys()) for number in range(4)}
    assert len(lost) > 2 and {len(of_epoch) for of_epoch in lost} == {len(entries) % 20}


def test_one_shard_serves_several_processes(entries, root, tmp_path, loader):
    shards = read_shards([write_shards(entries, root, tmp_path, "birds")], labels_required=True)
    assert len(shards) == 1
    make = partial(shard_loader, shards, **loader.keywords | {"batch_size": 1, "world_size": 2})
    halves = [[set(seen(epoch(make(rank=rank), number))) for rank in (0, 1)] for number in range(2)]
    assert not halves[0][0] & halves[0][1] and len(halves[0][0] | halves[0][1]) == len(entries) // 2 * 2
    assert halves[0][0] != halves[1][0]  # another half in another epoch


def seen_by_process(pattern, words, captions_per_image):
    """The captions and picture ids that one of several processes sees in each of two epochs with two workers."""
    multiprocessing.set_start_method("fork", force=True)  # the workers: the server's start would import all anew
    loader = shard_loader(
        read_shards([pattern], labels_required=True),
        transform=train_transform(16),
        tokenizer=words,
        batch_size=2,
        captions_per_image=captions_per_image,
        num_workers=2,
        seed=0,
        rank=processes.rank(),
        world_size=processes.world_size(),
        max_length=40,
        labels_required=True,
    )
    epochs = [epoch(loader, number) for number in range(2)]
    return [([c for b in batches for c in b.captions], [int(i) for b in batches for i in b.idx]) for batches in epochs]


@pytest.mark.parametrize("captions_per_image", [1, 2])
def test_two_processes_with_two_workers_see_everything_once(root, tmp_path, tokenizer, captions_per_image):
    """24 pictures with two captions each, in uneven shards: nothing falls off the end."""
    entries = [
        {"caption": f"w{i} w{c}", "image": file_name(i % PICTURES), "image_id": i, "label": 0}
        for i in range(24)
        for c in range(2)
    ]
    pattern = write_shards(entries, root, tmp_path, "uneven", 9)  # 9, 9 and 6
    parts = run_on_processes(2, seen_by_process, pattern, tokenizer, captions_per_image)
    for number in range(2):
        captions = Counter(caption for part in parts for caption in part[number][0])
        assert captions == Counter(entry["caption"] for entry in entries)
        assert Counter(i for part in parts for i in part[number][1]) == Counter({i: 2 for i in range(24)})
    assert parts[0][0] != parts[0][1]


def test_a_train_set_smaller_than_a_batch_is_an_error(loader):
    with pytest.raises(InputError, match="less than one batch of 30"):
        loader(batch_size=30, world_size=2)


def test_several_patterns_are_one_set(entries, root, tmp_path, pattern):
    other = write_shards(entries[:2], root, tmp_path, "more")
    shards = read_shards([pattern, other], labels_required=True)
    assert len(shards) == 6 and shards[-1].first_picture == PICTURES
    part = read_shards([pattern.replace("{000000", "{000003")], labels_required=True)
    assert [shard.pictures for shard in part] == [5, 3]
    (one,) = read_shards([pattern.replace("{000000..000004}", "000004")], labels_required=True)
    assert one.pictures == 3


def refused(patterns, **options):
    with pytest.raises(InputError) as told:
        read_shards(patterns, **{"labels_required": True} | options)
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.fixture
def written(entries, root, tmp_path):
    return write_shards(entries, root, tmp_path, "birds", PER_SHARD)


def test_shards_are_checked_before_training(written, entries, root, tmp_path):
    assert "twice" in refused([written, written])
    assert "twice" in refused([written, str(tmp_path / ".." / tmp_path.name / "birds-000001.tar")])
    assert "folder/name-{000000..000099}.tar" in refused([str(tmp_path / "birds-*.tar")])
    assert "folder/name-{000000..000099}.tar" in refused(["pipe:touch x.tar"])
    assert "none of them" in refused([written.replace("000004", "000005")])
    assert "names 0 shards" in refused([written.replace("{000000", "{000009")])
    assert "names 1000000000 shards" in refused([written.replace("{000000..000004}", "{0..999999999}")])
    whole = (tmp_path / "birds-000002.tar").read_bytes()
    (tmp_path / "birds-000002.tar").write_bytes(whole[:-1])
    assert "birds-000002.tar has" in refused([written])
    (tmp_path / "birds-000002.tar").unlink()
    assert "birds-000002.tar is missing" in refused([written])
    (tmp_path / "birds-000002.tar").write_bytes(whole)
    index = json.loads((tmp_path / "birds.json").read_text())
    for content in ("[]", "{", json.dumps(index | {"format": 0}), json.dumps(index | {"shards": [{}]})):
        (tmp_path / "birds.json").write_text(content)
        assert "write the shards anew" in refused([written])
    (tmp_path / "birds.json").unlink()
    assert "cannot read" in refused([written])


def test_shards_that_number_scenes_differently_are_not_joined(entries, root, tmp_path):
    named = [entry | {"label_name": f"scene {entry['label']}"} for entry in entries]
    swapped = [entry | {"label_name": f"scene {3 - entry['label']}"} for entry in entries]
    one, other, same, unnamed = (
        write_shards(given, root, tmp_path / name, name)
        for name, given in (("one", named), ("other", swapped), ("same", named), ("unnamed", entries))
    )
    assert len(read_shards([one, same], labels_required=True)) == 2 * len(read_shards([one], labels_required=True))
    for wrong in (other, unnamed):
        with pytest.raises(InputError, match="may number scenes differently"):
            read_shards([one, wrong], labels_required=True)
        read_shards([one, wrong], labels_required=False)


def test_labels_are_asked_for_only_where_the_loss_needs_them(entries, root, tmp_path, loader):
    unlabelled = [{key: entry[key] for key in entry if key != "label"} for entry in entries]
    pattern = write_shards(unlabelled, root, tmp_path, "birds")
    assert "without a label" in refused([pattern])
    options = loader.keywords | {"labels_required": False}
    batches = epoch(shard_loader(read_shards([pattern], labels_required=False), **options), 0)
    assert all(batch.label is None for batch in batches)


def tar_of(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


SAID = {"captions": ["w1 w2"], "image": "0.JPG", "label": 0}


@pytest.mark.parametrize(
    ("members", "told"),
    [
        (b"no tar at all" * 100, "cannot read the shard"),
        ({"0.json": json.dumps(SAID).encode()}, "lacks its picture or its JSON"),
        ({"0.jpg": b""}, "lacks its picture or its JSON"),
        ({"0.jpg": b"no picture", "0.json": json.dumps(SAID).encode()}, "cannot read the picture"),
        ({"0.jpg": b"", "0.json": b"{"}, "JSON is damaged"),
        ({"0.jpg": b"", "0.json": b"[]"}, "no list of captions"),
        ({"0.jpg": b"", "0.json": json.dumps(SAID | {"captions": [1]}).encode()}, "no list of captions"),
        ({"0.jpg": b"", "0.json": json.dumps(SAID | {"label": "x"}).encode()}, "no whole number as label"),
        ({"0.jpg": b"", "0.json": json.dumps(SAID | {"label": 2**70}).encode()}, "no whole number as label"),
        ({"0.pyd": b"x", "0.pickle": b"x", "0.json": json.dumps(SAID).encode()}, "lacks its picture"),
        ({}, "holds 0 items, its index says 1"),
    ],
)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_shard_is_named_in_one_line(root, tmp_path, loader, members, told, num_workers):
    entry = {"caption": "w1", "image": file_name(0), "image_id": 0, "label": 0}
    pattern = write_shards([entry], root, tmp_path, "birds")
    replace_shard(tmp_path, 0, members if isinstance(members, bytes) else tar_of(members))
    line = error_of(pattern, loader.keywords | {"batch_size": 1, "num_workers": num_workers})
    assert told in line and "\n" not in line and "birds-000000.tar" in line


def test_a_shard_that_holds_more_than_its_index_says_is_an_error(written, tmp_path, loader):
    index = json.loads((tmp_path / "birds.json").read_text())
    index["shards"][1] |= {"pictures": 2, "captions": 4}
    (tmp_path / "birds.json").write_text(json.dumps(index))
    assert "birds-000001.tar holds" in error_of(written, loader.keywords)


@pytest.mark.parametrize("size", [700, 2000])  # within a picture, and between two
def test_a_shard_that_is_cut_short_is_named_in_one_line(written, tmp_path, loader, size):
    replace_shard(tmp_path, 1, (tmp_path / "birds-000001.tar").read_bytes()[:size])
    line = error_of(written, loader.keywords)
    assert "\n" not in line and "birds-000001.tar" in line


def replace_shard(folder, number, content):
    """Another content, which the index knows the size of."""
    (folder / f"birds-{number:06d}.tar").write_bytes(content)
    index = json.loads((folder / "birds.json").read_text())
    index["shards"][number]["bytes"] = len(content)
    (folder / "birds.json").write_text(json.dumps(index))


def error_of(pattern, options):
    """What an epoch says. No traceback is kept: it would hold the loader, whose workers then end late."""
    try:
        epoch(shard_loader(read_shards([pattern], labels_required=True), **options), 0)
    except InputError as error:
        return str(error)
    pytest.fail("nothing was told")
