"""The training set's items, batches and loader.

Everything random about a train item comes from one seed the sampler sends with its index, so an epoch is the
same whatever ran before it and however many workers load it.
"""

from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from zlib import crc32

import torch
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate
from transformers import PreTrainedTokenizerBase

from dataset.annotations import TrainRecord
from dataset.pictures import load_picture
from dataset.tokenizer import padded, tokenized
from dataset.transforms import Transform
from utils.errors import InputError

Load = Callable[[str], ndarray]  # a picture's path -> uint8 [H, W, 3]


class TrainBatch(NamedTuple):
    """B pictures with k captions each; rows i*k to i*k+k-1 of the caption fields belong to picture i."""

    images: Tensor  # uint8 [B, 3, H, W]
    ids: Tensor  # int64 [k*B, L]
    attention_mask: Tensor  # int64 [k*B, L], 0 on padding
    idx: Tensor  # int64 [k*B], the picture's image id
    label: Tensor | None  # int64 [k*B], the picture's scene; None where a record has no label
    captions: list[str]  # k*B
    sentence: Tensor  # int64 [k*B], the same number for the same caption, on every process


class TrainItem(NamedTuple):
    """A transformed picture and k records of it."""

    image: Tensor  # uint8 [3, H, W]
    records: list[TrainRecord]


class SeededDataset(Dataset, Sized):
    """Items are asked for by `(index, seed)`: what is random about an item comes from the seed."""


class TrainDataset(SeededDataset):
    """An item a caption (released), or with `captions_per_image` above 1 an item a picture with that many.

    A picture's distinct captions are drawn without replacement, and cycled through where it has too few. The seed
    decides the captions drawn and the picture's augmentation.
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

    dataset: SeededDataset

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        seeds = torch.randint(2**32, (len(self.dataset),), generator=generator).tolist()
        return ((index, seeds[index]) for index in super().__iter__())


class PictureLoader(DataLoader):
    """A `DataLoader` that leaves the process's random numbers alone.

    A worker's `InputError` arrives as the one line it was, not as a traceback.
    """

    def __init__(self, dataset: Dataset, **options: Any) -> None:
        if options.get("num_workers"):
            from utils.machine_limits import allow_open_files

            allow_open_files(options["num_workers"])
        super().__init__(dataset, generator=torch.Generator(), **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch asks for a class of its own, private
        try:
            yield from super().__iter__()
            return
        except InputError as error:
            # torch's frames and the error hold each other, and in a garbage cycle the queues may be closed
            # before the workers were asked to end, which then takes seconds each.
            error.__traceback__ = None
            line = str(error).splitlines()[-1].rpartition("InputError: ")[2]
        raise InputError(line)


class TrainLoader(PictureLoader):
    """Loader of batches of `batch_size` pictures a process; the last partial batch is dropped.

    order: what decides an epoch's order by `set_epoch`, the sampler or the data set itself.
    entries: how many items an epoch has on all processes together, captions or pictures.
    workers_matter: whether the number of workers decides which items share a batch.
    """

    batch_size: int

    def __init__(
        self,
        dataset: Dataset,
        *,
        order: Any,
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
            batch_size=batch_size,
            num_workers=num_workers,
            drop_last=True,
            persistent_workers=num_workers > 0,
            **options,
        )

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration give this epoch."""
        self.order.set_epoch(epoch)


def seeded_loader(
    dataset: SeededDataset,
    *,
    batch_size: int,
    num_workers: int = 0,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    **options: Any,
) -> TrainLoader:
    """Loader of a data set in an order drawn from seed and epoch.

    options: those of torch's `DataLoader`.
    """
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
        **options,
    )


def train_loader(
    records: Sequence[TrainRecord],
    *,
    transform: Transform,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    captions_per_image: int = 1,
    load: Load = load_picture,
    skip_bad: bool = False,
    **options: Any,
) -> TrainLoader:
    """Loader of `TrainBatch`es of `batch_size` pictures a process.

    Call `loader.set_epoch(e)` before each epoch. Captions are cut at `max_length` tokens. skip_bad: take
    others in place of pictures that cannot be read. options: those of `seeded_loader`.
    """
    kind = TrainDataset
    if skip_bad:
        from dataset.skipping import SkippingDataset as kind
    dataset = kind(records, transform, captions_per_image=captions_per_image, load=load)
    return seeded_loader(dataset, collate_fn=TrainCollate(tokenizer, max_length), **options)


class TrainCollate:
    """Makes a batch of train items, captions cut at `max_length` tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length

    def __call__(self, items: list[TrainItem]) -> TrainBatch:
        records = [record for item in items for record in item.records]  # k*B
        captions = [record.caption for record in records]
        labels = [record.label for record in records]
        return TrainBatch(
            default_collate([item.image for item in items]),  # in a worker, straight into shared memory
            *padded(tokenized(captions, self.tokenizer, self.max_length), self.tokenizer),
            idx=torch.tensor([record.image_id for record in records]),
            label=None if None in labels else torch.tensor(labels),
            captions=captions,
            sentence=torch.tensor([crc32(caption.encode()) for caption in captions]),
        )
