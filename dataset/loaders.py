"""The train and evaluation datasets and their loaders.

Everything random about a train item comes from one seed the sampler sends with its index, so an epoch is the
same whatever ran before it and however many workers load it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate
from transformers import PreTrainedTokenizerBase

from dataset.annotations import TrainRecord
from dataset.transforms import Transform, load_picture
from utils.errors import InputError

# Loader workers are forked processes with a core each: the tokenizer's own threads would only contend (and
# it prints a warning at every fork unless this is set).
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

Load = Callable[[str], ndarray]  # a picture's path -> uint8 [H, W, 3]


class TrainBatch(NamedTuple):
    """B pictures with k captions each; rows i*k to i*k+k-1 of the caption fields belong to picture i."""

    images: Tensor  # uint8 [B, 3, H, W]
    ids: Tensor  # int64 [k*B, L]
    attention_mask: Tensor  # int64 [k*B, L], 0 on padding
    idx: Tensor  # int64 [k*B], the picture's image id
    label: Tensor | None  # int64 [k*B], the picture's scene; None where a record has no label
    captions: list[str]  # k*B


class ImageBatch(NamedTuple):
    """Evaluation pictures and their positions in the evaluation set."""

    indices: Tensor  # int64 [b]
    images: Tensor  # uint8 [b, 3, H, W]


class CaptionBatch(NamedTuple):
    """Evaluation captions and their positions in the evaluation set."""

    indices: Tensor  # int64 [b]
    ids: Tensor  # int64 [b, L]
    attention_mask: Tensor  # int64 [b, L], 0 on padding


class TrainItem(NamedTuple):
    """A transformed picture and k records of it."""

    image: Tensor  # uint8 [3, H, W]
    records: list[TrainRecord]


class TrainDataset(Dataset):
    """An item a caption (released), or with `captions_per_image` above 1 an item a picture with that many.

    A picture's distinct captions are drawn without replacement, and cycled through where it has too few. Items are
    asked for by `(index, seed)`: the seed decides the captions drawn and the picture's augmentation.
    """

    def __init__(
        self,
        records: Sequence[TrainRecord],
        transform: Transform,
        *,
        captions_per_image: int = 1,
        load: Load = load_picture,
    ) -> None:
        self.transform, self.load = transform, load
        self.captions_per_image = captions_per_image
        self.groups: list[list[TrainRecord]]  # the records an item draws from
        if captions_per_image == 1:
            self.groups = [[record] for record in records]
        else:
            of_image: dict[int, list[TrainRecord]] = {}
            for record in records:
                of_image.setdefault(record.image_id, []).append(record)
            self.groups = list(of_image.values())

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index_and_seed: tuple[int, int]) -> TrainItem:
        index, seed = index_and_seed
        group = self.groups[index]
        return draw_item(group, self.captions_per_image, seed, partial(self._picture, group[0].image))

    def _picture(self, path: str) -> Tensor:
        return self.transform(self.load(path))


def draw_item(
    group: Sequence[TrainRecord], captions_per_image: int, seed: int, picture: Callable[[], Tensor]
) -> TrainItem:
    """An item of a picture's records: what is random about it, in `picture()` too, comes from the seed.

    A sentence that a picture has several times, as most of RSICD's pictures do, is drawn as one.
    """
    distinct = list({record.caption: record for record in group}.values())
    with seeded(seed):
        order = torch.randperm(len(distinct)).tolist()
        drawn = [distinct[order[i % len(distinct)]] for i in range(captions_per_image)]
        return TrainItem(picture(), drawn)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers from `seed` within, as if none had been drawn after."""
    with torch.random.fork_rng(devices=[]):  # in a process without workers the model draws from it too
        torch.default_generator.manual_seed(seed)
        yield


class SeededSampler(DistributedSampler):
    """torch's distributed sampler, giving `(index, seed)`: the seed differs by entry and by epoch."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        seeds = torch.randint(2**32, (len(self.dataset),), generator=generator).tolist()
        return ((index, seeds[index]) for index in super().__iter__())


class PictureLoader(DataLoader):
    """A `DataLoader` that leaves the process's random numbers alone.

    A worker's `InputError` arrives as the one line it was, not as a traceback.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, generator=torch.Generator(), **options)

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from super().__iter__()
            return
        except InputError as error:
            # torch's frames and the error hold each other, and in a garbage cycle the queues may be closed
            # before the workers were told to end, which then takes seconds each.
            error.__traceback__ = None
            line = str(error).splitlines()[-1].rpartition("InputError: ")[2]
        raise InputError(line)


class _Epochs(Protocol):
    """What decides the order of an epoch's items."""

    def set_epoch(self, epoch: int) -> None: ...


class TrainLoader(PictureLoader):
    """Loader of `TrainBatch`es of `batch_size` pictures; the last partial batch is dropped.

    entries: how many items an epoch has on all processes together, captions or pictures.
    workers_matter: whether the number of workers decides which items share a batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        order: _Epochs,
        entries: int,
        share: int,
        batch_size: int,
        num_workers: int,
        workers_matter: bool,
        **options: Any,
    ) -> None:
        """share: how many of the entries this process has; `InputError` where they fill no batch."""
        if share < batch_size:
            raise InputError(
                f"the train set gives a process {share} entries, less than one batch of {batch_size}: "
                "use a smaller batch"
            )
        self.order, self.entries, self.workers_matter = order, entries, workers_matter
        super().__init__(
            dataset,
            batch_size,
            num_workers=num_workers,
            drop_last=True,
            persistent_workers=num_workers > 0,
            **options,
        )

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration give this epoch."""
        self.order.set_epoch(epoch)


def train_loader(
    records: Sequence[TrainRecord],
    *,
    transform: Transform,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
    captions_per_image: int = 1,
    num_workers: int = 0,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    max_length: int,
    pin_memory: bool = False,
    load: Load = load_picture,
) -> TrainLoader:
    """Loader of `TrainBatch`es of `batch_size` pictures a process.

    Call `loader.set_epoch(e)` before each epoch. Captions are cut at `max_length` tokens.
    """
    dataset = TrainDataset(records, transform, captions_per_image=captions_per_image, load=load)
    sampler = SeededSampler(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed)
    return TrainLoader(
        dataset,
        order=sampler,
        entries=len(dataset),
        share=len(sampler),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        workers_matter=False,
        collate_fn=train_collate(tokenizer, max_length),
        pin_memory=pin_memory,
    )


def evaluation_images_loader(
    images: Sequence[str],
    transform: Transform,
    batch_size: int,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    *,
    pin_memory: bool = False,
    load: Load = load_picture,
) -> DataLoader:
    """Loader of this process's `ImageBatch`es of picture files.

    Which pictures share a batch depends on `batch_size` alone.
    """
    return PictureLoader(
        _EvaluationImages(images, transform, load),
        batch_sampler=_share(range(len(images)), batch_size, rank, world_size),
        num_workers=num_workers,
        collate_fn=_collate_images,
        pin_memory=pin_memory,
    )


def caption_batches(
    captions: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
    max_tokens: int,
    *,
    group_by_length: bool,
    rank: int = 0,
    world_size: int = 1,
) -> list[CaptionBatch]:
    """This process's batches of the captions, cut at `max_tokens`, padded to the longest of their batch.

    Which captions share a batch does not depend on the number of processes: consecutive ones (released: an
    embedding without attention mask depends on its batch), or with `group_by_length` those of near length.
    """
    order: Sequence[int] = range(len(captions))
    if group_by_length:
        lengths = [len(ids) for ids in _encode(tokenizer, captions, max_tokens).input_ids]
        order = sorted(order, key=lengths.__getitem__)
    return [
        CaptionBatch(torch.tensor(indices), *_tokens(tokenizer, [captions[i] for i in indices], max_tokens))
        for indices in _share(order, batch_size, rank, world_size)
    ]


class _EvaluationImages(Dataset):
    def __init__(self, images: Sequence[str], transform: Transform, load: Load) -> None:
        self.images, self.transform, self.load = images, transform, load

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, self.transform(self.load(self.images[index]))


def _share(order: Sequence[int], batch_size: int, rank: int, world_size: int) -> list[list[int]]:
    """`order` cut into whole batches, of which this process takes every `world_size`-th."""
    starts = range(0, len(order), batch_size)[rank::world_size]
    return [list(order[start : start + batch_size]) for start in starts]


def train_collate(tokenizer: PreTrainedTokenizerBase, max_length: int) -> Callable[[list[TrainItem]], TrainBatch]:
    """What makes a batch of train items, captions cut at `max_length` tokens."""
    return partial(_collate_train, tokenizer=tokenizer, max_length=max_length)


def _collate_train(items: list[TrainItem], *, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TrainBatch:
    records = [record for item in items for record in item.records]  # k*B
    captions = [record.caption for record in records]
    labels = [record.label for record in records]
    return TrainBatch(
        default_collate([item.image for item in items]),  # in a worker, straight into shared memory
        *_tokens(tokenizer, captions, max_length),
        idx=torch.tensor([record.image_id for record in records]),
        label=None if None in labels else torch.tensor(labels),
        captions=captions,
    )


def _collate_images(items: list[tuple[int, Tensor]]) -> ImageBatch:
    return ImageBatch(*default_collate(items))


def _tokens(tokenizer: PreTrainedTokenizerBase, captions: Sequence[str], max_length: int) -> tuple[Tensor, Tensor]:
    """Ids and attention mask `[b, L]`, L the longest caption's tokens."""
    encoded = _encode(tokenizer, captions, max_length, padding="longest", return_tensors="pt")
    return encoded.input_ids, encoded.attention_mask


def _encode(tokenizer: PreTrainedTokenizerBase, captions: Sequence[str], max_length: int, **options: Any) -> Any:
    return tokenizer(list(captions), truncation=True, max_length=max_length, return_token_type_ids=False, **options)
