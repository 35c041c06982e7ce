"""Pictures that cannot be read: found by their headers before the first step, or skipped, counted and listed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.annotations import TrainRecord, read_train
from dataset.cache import PictureCache
from dataset.loaders import train_loader
from dataset.releases.shard_writer import write_shards
from dataset.shard_loader import ShardDataset
from dataset.shards import read_shards
from dataset.skipping import SkippingDataset, say_skipped
from dataset.start_checks import check_headers
from dataset.tokenizer import load_tokenizer
from dataset.transforms import train_transform
from utils.errors import InputError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def pictures(tmp_path):
    """Six pictures, the third cut short and the fourth no picture."""
    noise = np.random.default_rng(0).integers(0, 255, (6, 40, 40, 3), np.uint8)
    files = [tmp_path / f"{i}.png" for i in range(6)]
    for file, pixels in zip(files, noise, strict=True):
        Image.fromarray(pixels).save(file)
    files[2].write_bytes(files[2].read_bytes()[:1500])
    files[3].write_bytes(b"no picture")
    return [str(file) for file in files]


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"]))
    return load_tokenizer(tmp_path, 100)


def records(pictures):
    return [TrainRecord("abcdef"[i], picture, i, 0, None) for i, picture in enumerate(pictures)]


def test_headers_are_checked_without_decoding(pictures):
    with pytest.raises(InputError, match=r"^1 problem: cannot read the picture .*3\.png") as told:
        check_headers(pictures)  # the third is whole as far as its header tells
    assert "0x" not in str(told.value)
    check_headers([*pictures[:3], *pictures[4:]])


@pytest.mark.parametrize("workers", [0, 2])
def test_another_item_is_taken_for_a_picture_that_cannot_be_read(pictures, tokenizer, workers, capsys):
    def loader(**options):
        options |= {"tokenizer": tokenizer, "max_length": 9, "batch_size": 6, "num_workers": workers, "seed": 0}
        return train_loader(records(pictures), transform=train_transform(16), **options)

    with pytest.raises(InputError, match="cannot read the picture"):
        list(loader())
    skipping = [loader(skip_bad=True) for _ in range(2)]
    batches = [next(iter(one)) for one in skipping]
    assert batches[0].captions == batches[1].captions and not {"c", "d"} & set(batches[0].captions)
    assert len(batches[0].images) == 6
    import torch

    say_skipped(skipping[0], torch.device("cpu"))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "warning: 2 training pictures could not be read; others were taken in their place:"
    assert [line.strip() for line in said[1:]] == pictures[2:4]


def test_nothing_but_pictures_that_cannot_be_read_ends_training(pictures):
    with pytest.raises(InputError, match="20 training pictures drawn one after another"):
        SkippingDataset(records(pictures[2:4]), train_transform(16))[0, 7]


def test_a_cache_leaves_out_what_is_skipped(pictures, tmp_path):
    with pytest.raises(InputError, match="cannot read the picture"):
        PictureCache(tmp_path / "one", tmp_path).open(pictures)
    cache = PictureCache(tmp_path / "two", tmp_path, skip_bad=True)
    cache.open(pictures)
    assert cache.load(pictures[5]).shape == (40, 40, 3)
    with pytest.raises(InputError, match="cannot read the picture"):
        cache.load(pictures[3])


def test_shards_skip_them_too_and_keep_their_length(pictures, tmp_path):
    entries = [{"caption": "abcdef"[i], "image": Path(file).name, "image_id": i} for i, file in enumerate(pictures)]
    pattern = write_shards(entries, tmp_path, tmp_path / "shards", "s")
    options = {"batch_size": 3, "captions_per_image": 1, "seed": 0, "rank": 0, "world_size": 1}
    options |= {"labels_required": False}
    shards = read_shards([pattern], labels_required=False)
    with pytest.raises(InputError, match="cannot read the picture"):
        list(ShardDataset(shards, train_transform(16), **options))
    dataset = ShardDataset(shards, train_transform(16), **options, skip_bad=True)
    items = list(dataset)
    assert len(items) == len(dataset) == 6
    assert {item.records[0].caption for item in items} == set("abef")
    named = [dataset.name_of(number) for number in dataset.bad.nonzero().flatten().tolist()]
    assert len(named) == 2 and all(".tar picture " in name for name in named)


def test_absolute_paths_into_the_folder_are_read(tmp_path, monkeypatch):
    (tmp_path / "images/sub").mkdir(parents=True)
    (tmp_path / "images/sub/a.jpg").touch()
    (tmp_path / "outside.jpg").touch()
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    monkeypatch.chdir(tmp_path)

    def read(image, root="images"):
        entry = {"caption": "a park", "image": str(image), "image_id": 0}
        (tmp_path / "t.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([entry]).encode())  # with a byte order mark
        return read_train([tmp_path / "t.json"], root, labels_required=False)[0].image

    assert read(tmp_path / "images/sub/a.jpg") == read("sub/a.jpg") == "images/sub/a.jpg"
    assert read(tmp_path / "images/sub/a.jpg", "linked") == "linked/sub/a.jpg"
    with pytest.raises(InputError, match="lies outside image_root"):
        read(tmp_path / "outside.jpg")
