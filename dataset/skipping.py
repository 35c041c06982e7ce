"""`on_bad_picture: skip`: training goes on with another picture where one cannot be read, and says which at the end."""

from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dataset.loaders import TrainDataset, TrainItem
from utils import processes
from utils.errors import InputError
from utils.logs import say

TRIES = 20  # pictures that cannot be read, one after another: something else is wrong then


class SkippingDataset(TrainDataset):
    """In place of an item whose picture cannot be read, another is taken, drawn by the item's seed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.bad = shared_flags(len(self.groups))  # of items

    def __getitem__(self, index_and_seed: tuple[int, int]) -> TrainItem:
        index, seed = index_and_seed
        others = Random(seed)
        for _ in range(TRIES):
            try:
                return super().__getitem__((index, seed))
            except InputError:
                self.bad[index] = True
            index = others.randrange(len(self.groups))
        raise InputError(
            f"{TRIES} training pictures drawn one after another cannot be read, {self.name_of(index)} last"
        )

    def name_of(self, number: int) -> str:
        """The picture that a flag of `bad` stands for."""
        return self.groups[number][0].image


def shared_flags(count: int) -> Tensor:
    """`[count]`, all False, seen by this process and its loader's workers alike."""
    return torch.zeros(count, dtype=torch.bool).share_memory_()


def say_skipped(loader: DataLoader, device: torch.device) -> None:
    """Say which training pictures no process could read; every process must ask."""
    dataset: Any = loader.dataset
    numbers = processes.gather_uneven(dataset.bad.nonzero().flatten().to(device))
    names = sorted({dataset.name_of(number) for number in numbers.tolist()})
    if names:
        say(f"warning: {len(names)} training pictures could not be read; others were taken in their place:")
    for name in names:
        say(f"  {name}")
