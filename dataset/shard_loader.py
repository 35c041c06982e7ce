"""Training pictures streamed from webdataset tar shards, each shard read from front to end.

An epoch is one sequence: the shards in an order drawn from seed and epoch, from a place within the first one on and
round to it. Each process takes an equal, contiguous part of it, of that each worker whole batches, and shuffles what
it reads among the thousand pictures it holds. So nothing is seen twice in an epoch, and what falls off the end, less
than a batch a process, is something else in the next. Which items a process sees, and how each is augmented, depends
on seed, epoch and the number of processes alone; which of them share a batch, on the number of workers too.
"""

import hashlib
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerBase
from webdataset.filters import shuffle
from webdataset.tariterators import group_by_keys, tar_file_expander

from dataset.annotations import TrainRecord
from dataset.loaders import TrainCollate, TrainItem, TrainLoader, draw_item
from dataset.picture_names import SUFFIXES
from dataset.pictures import USUAL, PictureRule, decode_picture
from dataset.shards import Shard, sample_records
from dataset.skipping import TRIES, shared_flags
from dataset.transforms import Transform
from utils.errors import InputError

_SHUFFLED_PICTURES = 1000


class _Span(NamedTuple):
    """The items `first` to `last - 1` of a shard."""

    shard: Shard
    first: int
    last: int


class _Encoded(NamedTuple):
    """An item before its picture is decoded: the records to draw from, and the seed of what is random about it."""

    group: list[TrainRecord]
    picture: bytes
    seed: int


class ShardDataset(IterableDataset):
    """This process's items of an epoch: one a caption (released), or one a picture with `captions_per_image`."""

    def __init__(
        self,
        shards: Sequence[Shard],
        transform: Transform,
        *,
        batch_size: int,
        captions_per_image: int,
        seed: int,
        rank: int,
        world_size: int,
        labels_required: bool,
        rule: PictureRule = USUAL,
        skip_bad: bool = False,
    ) -> None:
        """skip_bad: take the next readable item twice in place of one whose picture cannot be read."""
        self.shards, self.transform, self.labels_required, self.rule = shards, transform, labels_required, rule
        self.bad = shared_flags(sum(shard.pictures for shard in shards)) if skip_bad else None
        self.batch_size, self.captions_per_image, self.seed = batch_size, captions_per_image, seed
        self.sizes = [shard.captions if captions_per_image == 1 else shard.pictures for shard in shards]  # items
        self.share = sum(self.sizes) // world_size
        self.first = rank * self.share
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers outlive an epoch

    def __len__(self) -> int:
        return self.share // self.batch_size * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration give this epoch."""
        self.epoch.fill_(epoch)

    def __iter__(self) -> Iterator[TrainItem]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        batches = len(self) // self.batch_size
        first, last = (self.first + self.batch_size * (batches * n // workers) for n in (number, number + 1))
        epoch = int(self.epoch)
        encoded = (item for span in self._spans(epoch, first, last) for item in self._items(span, epoch))
        held = _SHUFFLED_PICTURES * sum(self.sizes) // sum(shard.pictures for shard in self.shards)
        generator = random.Random(f"{self.seed} {epoch} {first}")
        owed, last_item = 0, None  # how many items could not be read since the last that could
        for group, picture, seed in shuffle(held, initial=held, rng=generator)(encoded):
            try:
                read = partial(self._picture, picture, group[0].image)
                item = draw_item(group, self.captions_per_image, seed, read)
            except InputError:
                owed += 1
                if self.bad is None or owed == TRIES:
                    raise
                self.bad[group[0].image_id] = True
                continue
            yield from [item] * (1 + owed)
            last_item, owed = item, 0
        if owed:
            if last_item is None:
                raise InputError(f"no picture of {self.shards[0].file} and the shards after it can be read")
            yield from [last_item] * owed

    def _spans(self, epoch: int, first: int, last: int) -> Iterator[_Span]:
        """What the positions `first` to `last - 1` of the epoch's sequence are."""
        generator = random.Random(f"{self.seed} {epoch}")
        order = list(zip(self.shards, self.sizes, strict=True))
        generator.shuffle(order)
        (start, size), cut = order[0], generator.randrange(order[0][1])
        sequence = [
            _Span(start, cut, size),
            *(_Span(shard, 0, size) for shard, size in order[1:]),
            _Span(start, 0, cut),
        ]
        position = 0
        for span in sequence:
            begin = max(first - position, 0) + span.first
            end = min(last - position + span.first, span.last)
            if begin < end:
                yield _Span(span.shard, begin, end)
            position += span.last - span.first

    def _items(self, span: _Span, epoch: int) -> Iterator[_Encoded]:
        """The items of a span, in the order they are stored in."""
        place = 0  # among the shard's items
        size = span.shard.captions if self.captions_per_image == 1 else span.shard.pictures
        for number, sample in enumerate(shard_samples(span.shard.file)):
            name = f"{span.shard.file}/{sample['__key__']}"
            suffix = next((suffix for suffix in SUFFIXES if suffix in sample), None)
            if suffix is None or not {"json", "txt"} & sample.keys():
                raise InputError(f"{name} lacks its picture or its JSON: write the shards anew")
            image_id = span.shard.first_picture + number
            records = sample_records(
                sample.get("json"), name, image_id, labels_required=self.labels_required, text=sample.get("txt")
            )
            for group in [[record] for record in records] if self.captions_per_image == 1 else [records]:
                if span.first <= place < span.last:
                    yield _Encoded(group, sample[suffix], self._item_seed(epoch, image_id, place))
                place += 1
            if span.last <= place and span.last < size:
                return
        if place != size:
            raise InputError(f"{span.shard.file} holds {place} items, its index says {size}: write the shards anew")

    def _item_seed(self, epoch: int, image_id: int, place: int) -> int:
        text = f"{self.seed} {epoch} {image_id} {place}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())

    def _picture(self, data: bytes, name: str) -> Tensor:
        return self.transform(decode_picture(data, name, self.rule))

    def name_of(self, number: int) -> str:
        """The picture that a flag of `bad` stands for, by its shard and its place in it."""
        shard = self.shards[bisect_right([shard.first_picture for shard in self.shards], number) - 1]
        return f"{shard.file} picture {number - shard.first_picture + 1}"


def shard_loader(
    shards: Sequence[Shard],
    *,
    transform: Transform,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    captions_per_image: int = 1,
    labels_required: bool,
    rule: PictureRule = USUAL,
    skip_bad: bool = False,
    batch_size: int,
    num_workers: int = 0,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    **options: Any,
) -> TrainLoader:
    """Loader of `TrainBatch`es of `batch_size` pictures a process, equally many on each.

    Call `loader.set_epoch(e)` before each epoch. Captions are cut at `max_length` tokens. options: those of torch's
    `DataLoader`.
    """
    dataset = ShardDataset(
        shards,
        transform,
        batch_size=batch_size,
        captions_per_image=captions_per_image,
        seed=seed,
        rank=rank,
        world_size=world_size,
        labels_required=labels_required,
        rule=rule,
        skip_bad=skip_bad,
    )
    return TrainLoader(
        dataset,
        order=dataset,
        entries=sum(dataset.sizes),
        share=dataset.share,
        batch_size=batch_size,
        num_workers=num_workers,
        workers_matter=True,
        collate_fn=TrainCollate(tokenizer, max_length),
        **options,
    )


def shard_samples(file: str) -> Iterator[dict[str, Any]]:
    """The samples of a shard, undecoded: `{"__key__", "json", "jpg", ...}`; `InputError` where it is damaged."""
    try:
        with open(file, "rb") as stream:
            # The library's own opener would run a program or fetch an address that a file name spells.
            yield from group_by_keys(tar_file_expander([{"url": file, "stream": stream}]))
    except InputError:
        raise
    except Exception as error:  # tarfile raises many kinds, and the library adds to their arguments
        reason = " ".join(f"{type(error).__name__}: {error.args[0] if error.args else ''}".split())
        raise InputError(f"cannot read the shard {file}: {reason}; copy or write it anew") from None
