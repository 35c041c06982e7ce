"""What a run says of itself before it reads any data: where it computes, on what, with which batch."""

import argparse
from pathlib import Path

from utils import processes
from utils.logs import say
from utils.training import Run

PUBLISHED_BATCH = 256  # two cards of 128
PUBLISHED_CONFIGS = ("Retrieval_rsicd.yaml", "Retrieval_rsitmd.yaml")  # whose numbers a paper gives


def announce(run: Run, args: argparse.Namespace) -> None:
    """Print the device, the number of processes, the data and the global batch; and arguments without effect."""
    count, config = processes.world_size(), run.config.to_dict()
    where = f"{run.device}, {count} processes" if count > 1 else f"{run.device}, 1 process"
    files = config["test_file"] if args.evaluate else config["train_file"]
    data = ", ".join([files] if isinstance(files, str) else files or [config["class_folders"]])
    batch = run.config.batch_size_train * count
    say(
        f"{where}; {data}"
        + ("" if args.evaluate else f"; global batch {batch}, {run.config.batch_size_train} a process")
    )
    if not args.evaluate and Path(args.config).name in PUBLISHED_CONFIGS and batch != PUBLISHED_BATCH:
        say(f"global batch {batch}; the published numbers are of {PUBLISHED_BATCH} (--bs {PUBLISHED_BATCH})")
    if args.ignored:
        names = ", ".join(f"--{name}" for name in args.ignored)
        say(f"{names}: no effect here, the launcher says how many processes there are and where they meet")
