"""What `train_file` names, annotation files or tar shards, and the loader of either."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dataset.annotations import TrainRecord, read_train
from dataset.loaders import Load, TrainLoader, train_loader
from dataset.shard_loader import shard_loader
from dataset.shards import Shard, are_shards, read_shards


class TrainSet(NamedTuple):
    """The captions of annotation files, or the shards: one of the two is empty."""

    records: list[TrainRecord]
    shards: list[Shard]
    labels_required: bool

    @property
    def images(self) -> list[str]:
        """The picture files, one a caption; shards hold their pictures themselves."""
        return [record.image for record in self.records]

    def loader(self, *, load: Load, **options: Any) -> TrainLoader:
        """This process's loader, with the options that `train_loader` and `shard_loader` share."""
        if self.shards:
            return shard_loader(self.shards, labels_required=self.labels_required, **options)
        return train_loader(self.records, load=load, **options)


def read_train_set(train_files: Sequence[str], image_root: str | Path, *, labels_required: bool) -> TrainSet:
    """Read and check the annotation files, or the index of the shards; `InputError` for what is wrong there."""
    if are_shards(train_files):
        return TrainSet([], read_shards(train_files, labels_required=labels_required), labels_required)
    return TrainSet(read_train(train_files, image_root, labels_required=labels_required), [], labels_required)
