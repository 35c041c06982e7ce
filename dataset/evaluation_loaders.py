"""The pictures and captions of an evaluation in batches: each process its share, once.

A share is whole batches, and which items share a batch does not depend on the number of processes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from transformers import PreTrainedTokenizerBase

from dataset.loaders import PictureLoader
from dataset.pictures import load_picture
from dataset.tokenizer import padded, tokenized
from dataset.transforms import Transform


class ImageBatch(NamedTuple):
    """Evaluation pictures and their positions in the evaluation set."""

    indices: Tensor  # int64 [b]
    images: Tensor  # uint8 [b, 3, H, W]


class CaptionBatch(NamedTuple):
    """Evaluation captions and their positions in the evaluation set."""

    indices: Tensor  # int64 [b]
    ids: Tensor  # int64 [b, L]
    attention_mask: Tensor  # int64 [b, L], 0 on padding


def evaluation_images_loader(
    images: Sequence[Any],
    transform: Transform,
    batch_size: int,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    *,
    pin_memory: bool = False,
    load: Callable[[Any], ndarray] = load_picture,
) -> DataLoader:
    """Loader of this process's `ImageBatch`es of pictures: files, or whatever `load` makes pixels of.

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
    ids = tokenized(captions, tokenizer, max_tokens)
    order: Sequence[int] = range(len(captions))
    if group_by_length:
        order = sorted(order, key=lambda i: len(ids[i]))
    return [
        CaptionBatch(torch.tensor(indices), *padded([ids[i] for i in indices], tokenizer))
        for indices in _share(order, batch_size, rank, world_size)
    ]


class _EvaluationImages(Dataset):
    def __init__(self, images: Sequence[Any], transform: Transform, load: Callable[[Any], ndarray]) -> None:
        self.images, self.transform, self.load = images, transform, load

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, self.transform(self.load(self.images[index]))


def _collate_images(items: list[tuple[int, Tensor]]) -> ImageBatch:
    return ImageBatch(*default_collate(items))


def _share(order: Sequence[int], batch_size: int, rank: int, world_size: int) -> list[list[int]]:
    """`order` cut into whole batches, of which this process takes every `world_size`-th."""
    starts = range(0, len(order), batch_size)[rank::world_size]
    return [list(order[start : start + batch_size]) for start in starts]
