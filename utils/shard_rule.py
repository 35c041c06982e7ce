"""What cannot go with `shard`, found without torch: the launcher asks before any process starts."""

from utils.config import Config
from utils.errors import InputError


def check_shard(config: Config, processes: int) -> None:
    """Raise InputError where a model cannot be divided among so many processes."""
    if processes == 1:
        raise InputError("--shard divides a model among processes, and there is one; leave it out, or start several")
    if config.compile or config.precision == "fp16":
        raise InputError("--shard goes neither with --compile nor with precision fp16; leave one of them out")
    if config.lora:
        raise InputError("--shard and lora exclude each other; leave one of them out")
    if config.average_decay:
        raise InputError("--shard and average_decay exclude each other: give --override average_decay=0, or no --shard")
