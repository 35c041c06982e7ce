"""Whether each process's share of a training set fills one batch."""

import math

from dataset.annotations import read_train
from dataset.shards import read_shards
from utils.config import Config
from utils.errors import InputError


def entries_of_a_process(config: Config, count: int) -> int:
    """How many of the training set's items, captions or pictures, one of `count` processes has; all are read."""
    by_picture = config.captions_per_image > 1
    if config.trains_from_shards:
        shards = read_shards(config.train_file, labels_required=config.use_affil_loss)
        return sum(shard.pictures if by_picture else shard.captions for shard in shards) // count
    records = read_train(**config.training_files)
    return math.ceil((len({record.image_id for record in records}) if by_picture else len(records)) / count)


def check_share(share: int, batch: int) -> None:
    """Raise InputError where a process's share of the training set does not fill one batch."""
    if share < batch:
        raise InputError(
            f"the training set gives a process {share} entries, less than one batch of {batch}: use a smaller --bs"
        )
