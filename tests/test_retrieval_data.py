"""The train and evaluation datasets and their loaders."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertTokenizerFast

from dataset.annotations import EvaluationSet, TrainRecord
from dataset.evaluation_loaders import caption_batches, evaluation_images_loader
from dataset.loaders import train_loader
from dataset.transforms import evaluation_transform, train_transform
from utils.errors import InputError

WORDS = [f"w{i}" for i in range(40)]
PICTURES = 10


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return BertTokenizerFast({token: i for i, token in enumerate(vocabulary)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures 0.png to 9.png, picture i of grey 20 * i, striped."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(PICTURES):
        pixels = np.full((20, 20, 3), 20 * i, np.uint8)
        pixels[::5] += 20
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def records(folder):
    """Caption c of picture i is `w{i}` and c + 1 more words; picture i has the label i % 3."""
    return [
        TrainRecord(f"w{i}" + " w39" * (c + 1), str(folder / f"{i}.png"), i, i % 3, None)
        for i in range(PICTURES)
        for c in range(3)
    ]


@pytest.fixture(scope="module")
def loader(records, tokenizer):
    """`train_loader` with what most tests share; other records may be given."""

    def make(of=records, **options):
        shared = {"transform": train_transform(16), "batch_size": 4, "seed": 5, "max_length": 40}
        return train_loader(of, tokenizer=tokenizer, **shared | options)

    return make


def epoch(loader, number):
    loader.set_epoch(number)
    return list(loader)


def same(batches, others):
    return len(batches) == len(others) and all(
        a.captions == b.captions and all(torch.equal(x, y) for x, y in zip(a[:5], b[:5], strict=True))
        for a, b in zip(batches, others, strict=True)
    )


def test_released_an_epoch_has_every_caption_once_but_the_last_partial_batch(loader, records):
    batches = epoch(loader(), 0)
    assert len(batches) == len(records) // 4
    seen = Counter(caption for batch in batches for caption in batch.captions)
    assert set(seen.values()) == {1} and set(seen) < {record.caption for record in records}


def test_a_train_batch_holds_what_its_records_say(loader, records, tokenizer):
    by_caption = {record.caption: record for record in records}
    plain = loader(transform=evaluation_transform(16))
    for batch in epoch(plain, 0):
        chosen = [by_caption[caption] for caption in batch.captions]
        assert batch.idx.tolist() == [record.image_id for record in chosen]
        assert batch.label.tolist() == [record.label for record in chosen]
        assert tokenizer.batch_decode(batch.ids, skip_special_tokens=True) == batch.captions
        longest = max(len(caption.split()) for caption in batch.captions) + 2  # [CLS], [SEP]
        assert batch.ids.shape == batch.attention_mask.shape == (4, longest)
        assert torch.equal(batch.attention_mask, (batch.ids != tokenizer.pad_token_id).long())
        assert batch.images.shape == (4, 3, 16, 16) and batch.images.dtype == torch.uint8
        darkest = batch.images.amin(dim=(1, 2, 3))  # tells the picture
        assert ((darkest - 20 * batch.idx).abs() < 8).all()


def test_several_captions_of_a_picture_stand_together_without_repetition(loader):
    batches = epoch(loader(captions_per_image=2), 0)
    assert len(batches) == PICTURES // 4
    for batch in batches:
        assert batch.images.shape[0] == 4 and batch.ids.shape[0] == 8
        assert batch.idx[0::2].tolist() == batch.idx[1::2].tolist()
        assert len(set(batch.idx.tolist())) == 4
        assert [int(caption.split()[0][1:]) for caption in batch.captions] == batch.idx.tolist()
        assert len(set(batch.captions)) == 8


def test_a_picture_with_too_few_captions_cycles_through_them(loader):
    for batch in epoch(loader(captions_per_image=5), 0):
        for i in range(4):
            counts = Counter(batch.captions[5 * i : 5 * i + 5])
            assert sorted(counts.values()) == [1, 2, 2]


def test_a_sentence_that_a_picture_has_several_times_is_drawn_as_one(loader, records):
    repeated = [record for record in records for _ in range(4 if record.caption.count("w39") == 1 else 1)]
    for batch in epoch(loader(repeated, captions_per_image=3), 0):
        for i in range(4):
            assert len(set(batch.captions[3 * i : 3 * i + 3])) == 3


def test_the_drawn_captions_differ_from_epoch_to_epoch(loader):
    several = loader(captions_per_image=2, batch_size=10)
    drawn = [{frozenset(epoch(several, e)[0].captions)} for e in range(3)]
    assert drawn[0] != drawn[1] or drawn[1] != drawn[2]


@pytest.mark.parametrize("captions_per_image", [1, 2])
def test_an_epoch_repeats_whatever_ran_before_it_and_however_many_workers_load_it(loader, captions_per_image):
    first = loader(captions_per_image=captions_per_image, num_workers=2)
    epochs = [epoch(first, e) for e in range(3)]
    torch.manual_seed(99)
    resumed = epoch(loader(captions_per_image=captions_per_image, num_workers=1), 2)
    alone = epoch(loader(captions_per_image=captions_per_image), 2)
    assert same(epochs[2], resumed) and same(epochs[2], alone)
    assert not same(epochs[1], epochs[2])
    assert not same(epochs[2], epoch(loader(captions_per_image=captions_per_image, seed=6), 2))


def test_the_same_picture_is_augmented_anew_in_each_epoch_and_for_each_caption(records, tokenizer):
    alone = [record for record in records if record.image_id == 9]
    loader = train_loader(
        alone, transform=train_transform(16), tokenizer=tokenizer, batch_size=3, seed=5, max_length=40
    )
    images = [image.numpy().tobytes() for e in range(4) for image in epoch(loader, e)[0].images]
    assert len(set(images)) > 8


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loading_leaves_the_model_s_random_numbers_alone(loader, evaluation_set, num_workers):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    epoch(loader(num_workers=num_workers), 0)
    list(evaluation_images_loader(evaluation_set.images, evaluation_transform(16), 4, num_workers))
    assert torch.equal(torch.rand(4), expected)


def test_a_loader_knows_the_entries_of_all_processes_together(loader):
    shared = loader(rank=1, world_size=3)
    assert (shared.entries, len(shared)) == (30, 2)
    assert loader(captions_per_image=2).entries == PICTURES


def test_processes_share_an_epoch(loader, records):
    parts = [epoch(loader(rank=rank, world_size=3, batch_size=5), 1) for rank in range(3)]
    assert [len(part) for part in parts] == [2, 2, 2]
    seen = [caption for part in parts for batch in part for caption in batch.captions]
    assert sorted(seen) == sorted(record.caption for record in records)


def test_train_captions_are_cut_at_the_encoder_s_positions_only(loader):
    assert max(batch.ids.shape[1] for batch in epoch(loader(), 0)) == 6
    assert {batch.ids.shape[1] for batch in epoch(loader(max_length=4), 0)} == {4}


def test_records_without_labels_give_none(loader, records):
    unlabelled = [record._replace(label=None) for record in records]
    assert all(batch.label is None for batch in epoch(loader(unlabelled), 0))


def test_a_train_set_smaller_than_a_batch_is_an_error(loader):
    with pytest.raises(InputError, match="30 entries, less than one batch of 31"):
        loader(batch_size=31)
    with pytest.raises(InputError, match="10 entries"):
        loader(batch_size=11, world_size=3)


@pytest.fixture(scope="module")
def evaluation_set(folder):
    images = tuple(str(folder / f"{i}.png") for i in range(PICTURES))
    captions = tuple(f"w{i}" + " w39" * (7 * i % 5) for i in range(23))
    return EvaluationSet(images, captions, [i % PICTURES for i in range(23)], None)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_evaluation_pictures_keep_their_batches_whatever_the_number_of_processes(
    evaluation_set, world_size, num_workers
):
    batches = [
        batch
        for rank in range(world_size)
        for batch in evaluation_images_loader(
            evaluation_set.images, evaluation_transform(16), 4, num_workers, rank, world_size
        )
    ]
    assert sorted(batch.indices.tolist() for batch in batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for indices, images in batches:
        assert images.dtype == torch.uint8 and images.shape == (len(indices), 3, 16, 16)
        assert ((images.amin(dim=(1, 2, 3)) - 20 * indices).abs() < 8).all()


def test_a_process_may_have_no_evaluation_batch(evaluation_set, tokenizer):
    assert list(evaluation_images_loader(evaluation_set.images, evaluation_transform(16), 10, 1, 1, 2)) == []
    assert caption_batches(["w1"], tokenizer, 4, 47, group_by_length=True, rank=1, world_size=2) == []


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("group_by_length", [False, True])
def test_captions_keep_their_batches_whatever_the_number_of_processes(
    evaluation_set, tokenizer, world_size, group_by_length
):
    captions = evaluation_set.captions
    batches = [
        batch
        for rank in range(world_size)
        for batch in caption_batches(
            captions, tokenizer, 4, 47, group_by_length=group_by_length, rank=rank, world_size=world_size
        )
    ]
    order = list(range(23))
    if group_by_length:
        order.sort(key=lambda i: (len(captions[i].split()), i))
    assert sorted(b.indices.tolist() for b in batches) == sorted(order[i : i + 4] for i in range(0, 23, 4))
    for indices, ids, attention_mask in batches:
        assert tokenizer.batch_decode(ids, skip_special_tokens=True) == [captions[i] for i in indices]
        assert ids.shape[1] == max(len(captions[i].split()) for i in indices) + 2
        assert torch.equal(attention_mask, (ids != tokenizer.pad_token_id).long())


def test_evaluation_captions_are_cut_at_max_tokens(tokenizer):
    (batch,) = caption_batches(["w1 w2 w3 w4 w5", "w6"], tokenizer, 2, 5, group_by_length=False)
    assert tokenizer.batch_decode(batch.ids, skip_special_tokens=True) == ["w1 w2 w3", "w6"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_picture_is_named_in_one_line(loader, records, tmp_path, num_workers):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    broken = [record._replace(image=str(bad)) for record in records]
    for pictures in (
        loader(broken, num_workers=num_workers),
        evaluation_images_loader([str(bad)], evaluation_transform(16), 4, num_workers),
    ):
        with pytest.raises(InputError, match="cannot read the picture") as told:
            list(pictures)
        assert str(bad) in str(told.value) and "\n" not in str(told.value)
        assert str(told.value).startswith("cannot read the picture")
