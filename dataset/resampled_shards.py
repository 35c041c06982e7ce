"""Pictures drawn without end from tar shards of several sources, for a pre-training counted in steps.

A picture comes from a source with the chance of its weight, and there from shards that are drawn again and again. Which
pictures a process sees between two evaluations depends on the seed, the evaluation's number, and the numbers of
processes and workers. So a run that goes on after an evaluation sees what it would have seen.

A sample is in our form (`dataset.shards`), in img2dataset's, or in RS5M's own: `img_content`, the picture's bytes,
`caption` and `img_name`.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerBase
from webdataset.filters import shuffle

from dataset.annotations import TrainRecord
from dataset.captions import clean_caption
from dataset.loaders import TrainCollate, TrainItem, TrainLoader, draw_item
from dataset.picture_names import SUFFIXES
from dataset.pictures import USUAL, PictureRule, decode_picture
from dataset.shard_loader import shard_samples
from dataset.shards import sample_records, shard_names
from dataset.transforms import Transform
from utils.errors import InputError

_SHUFFLED_PICTURES = 1000
Sources = Sequence[tuple[Sequence[str], float]]  # shards' files, and the weight of a source


class ResampledShards(IterableDataset):
    """This process's pictures of a stretch of `steps` batches, one caption each."""

    def __init__(
        self,
        sources: Sources,
        transform: Transform,
        *,
        steps: int,
        batch_size: int,
        seed: int,
        rank: int,
        rule: PictureRule = USUAL,
        skip_bad: bool = False,
    ) -> None:
        """skip_bad: draw another where a picture cannot be read; what else is wrong with a shard stops all the same."""
        self.sources, self.transform, self.rule, self.skip_bad = sources, transform, rule, skip_bad
        self.steps, self.batch_size, self.seed, self.rank = steps, batch_size, seed, rank
        self.stretch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers outlive one

    def __len__(self) -> int:
        return self.steps * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration give this stretch."""
        self.stretch.fill_(epoch)

    def __iter__(self) -> Iterator[TrainItem]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        first, last = (self.steps * n // workers for n in (number, number + 1))
        draw = random.Random(f"{self.seed} {int(self.stretch)} {self.rank} {number}")
        left = (last - first) * self.batch_size
        mix = shuffle(_SHUFFLED_PICTURES, initial=_SHUFFLED_PICTURES, rng=draw)
        streams = [mix(_samples(files, draw)) for files, _ in self.sources]
        weights = [weight for _, weight in self.sources]
        unread = 0  # pictures in a row
        while left:
            (stream,) = draw.choices(streams, weights)
            records, picture = sample_of(next(stream))  # not below: a stream that has raised gives nothing more
            try:
                item = self._item(records, picture, draw)
            except InputError:
                unread += 1
                if not self.skip_bad or unread == 100:
                    raise
                continue
            yield item
            left, unread = left - 1, 0

    def _item(self, records: list[TrainRecord], picture: bytes, draw: random.Random) -> TrainItem:
        read = partial(decode_picture, picture, records[0].image, self.rule)
        return draw_item([draw.choice(records)], 1, draw.getrandbits(62), lambda: self.transform(read()))


def _samples(files: Sequence[str], draw: random.Random) -> Iterator[dict[str, Any]]:
    """Without end, the samples of a shard drawn anew after each."""
    while True:
        file = draw.choice(files)
        empty = True
        for sample in shard_samples(file):
            yield sample | {"__shard__": file}
            empty = False
        if empty:
            raise InputError(f"the shard {file} holds no sample: leave it out, or write it anew")


def sample_of(sample: dict[str, Any]) -> tuple[list[TrainRecord], bytes]:
    """A sample's captions, each with its picture's id, and the picture's bytes; InputError naming the sample."""
    name = f"{sample['__shard__']}/{sample['__key__']}"
    try:
        return _captions_and_picture(sample, name)
    except InputError as error:
        reason = str(error)
        raise InputError(reason if name in reason else f"{name}: {reason}") from None


def _captions_and_picture(sample: dict[str, Any], name: str) -> tuple[list[TrainRecord], bytes]:
    image_id = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest())
    if "img_content" in sample:
        if "caption" not in sample:
            raise InputError(f"{name} has img_content and no caption")
        caption = sample["caption"].decode("utf-8", errors="replace")
        return [TrainRecord(clean_caption(caption), name, image_id, None, None)], sample["img_content"]
    suffix = next((suffix for suffix in SUFFIXES if suffix in sample), None)
    if suffix is None or not {"json", "txt"} & sample.keys():
        keys = ", ".join(sorted(key for key in sample if not key.startswith("__"))[:5]) or "nothing"
        raise InputError(
            f"{name} has {keys}: a sample has a picture and json or txt, or RS5M's img_content and caption"
        )
    records = sample_records(sample.get("json"), name, image_id, labels_required=False, text=sample.get("txt"))
    return records, sample[suffix]


def files_of(patterns: Sequence[str]) -> list[str]:
    """The shards that patterns name, `folder/name-{000000..000099}.tar`; InputError for one that is not there."""
    files = [str(Path(pattern).parent / name) for pattern in patterns for name in shard_names(pattern)]
    if missing := [file for file in files if not Path(file).is_file()]:
        raise InputError(f"{len(missing)} of {len(files)} shards are missing, first {missing[0]}")
    return files


def check_sources(sources: Sources, rule: PictureRule = USUAL, *, skip_bad: bool = False) -> None:
    """Read the first sample of each shard of each source; InputError in one line for what training would stop at.

    skip_bad: as of `ResampledShards`, whose pictures are looked at when they are met.
    """
    for files, _ in sources:
        for file in files:
            first = next(iter(shard_samples(file)), None)
            if first is None:
                raise InputError(f"the shard {file} holds no sample: leave it out, or write it anew")
            records, picture = sample_of(first | {"__shard__": file})
            if not skip_bad:
                decode_picture(picture, records[0].image, rule)


def resampled_loader(
    sources: Sources,
    *,
    transform: Transform,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    steps: int,
    batch_size: int,
    num_workers: int = 0,
    seed: int,
    rank: int = 0,
    rule: PictureRule = USUAL,
    skip_bad: bool = False,
    **options: Any,
) -> TrainLoader:
    """Loader of `steps` batches of `batch_size` pictures; `loader.set_epoch(n)` before the n-th stretch.

    options: those of torch's `DataLoader`.
    """
    dataset = ResampledShards(
        sources, transform, steps=steps, batch_size=batch_size, seed=seed, rank=rank, rule=rule, skip_bad=skip_bad
    )
    return TrainLoader(
        dataset,
        order=dataset,
        entries=len(dataset),
        share=len(dataset),
        batch_size=batch_size,
        num_workers=num_workers,
        workers_matter=True,
        collate_fn=TrainCollate(tokenizer, max_length),
        **options,
    )
