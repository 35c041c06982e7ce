"""A training step on 1, 2 and 4 processes of this machine, beside what the model in docs/scaling.md says of it.

    python benchmarks/processes.py

takes random weights and inputs and the batch of the config on each process. It needs an idle machine with a core a
process; with fewer cores the processes share them and the prediction, which knows nothing of that, is too low.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

from benchmarks.train_step import random_batch  # noqa: E402
from models.build import build_pir  # noqa: E402
from models.encoders import normalise  # noqa: E402
from models.pir import PIR  # noqa: E402
from optim import create_optimizer  # noqa: E402
from utils import processes  # noqa: E402
from utils.config import Config, config_from_file, process_batch  # noqa: E402
from utils.cost import count_parameters  # noqa: E402
from utils.errors import run_cli  # noqa: E402

TOKENS = 24  # of the longest caption in a usual batch
PROBE = 4 * 2**20  # numbers in the all_reduce that tells the speed of the network


def main(arguments: list[str] | None = None) -> None:
    """Measure each number of processes with torchrun, and print what was measured beside the prediction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/Retrieval_demo.yaml")
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[1, 2, 4], help="of processes; the first is compared to"
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--bs", type=int, help="global batch (default: the config's on each process)")
    parser.add_argument(
        "--sizes", action="store_true", help="print what a step of the config sends, and measure nothing"
    )
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    config = config_from_file(args.config)
    if args.sizes:
        sizes = sizes_of(config, build_pir(config))
        print(f"{sizes['total']:,} parameters, {sizes['trained']:,} trained; {sizes['captions']} captions a process")
        for count in (8, 64, 512):
            print(f"{count:4} processes: {', '.join(f'{k} {v / 1e6:,.1f} MB' for k, v in sent(sizes, count).items())}")
        return
    if args.measure:
        print(json.dumps(measured(config, args.steps, args.bs)), flush=True)
        return
    alone: dict[str, float] = {}
    for count in args.counts:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
        command += [__file__, "--measure", "--config", args.config, "--steps", str(args.steps)]
        command += [] if args.bs is None else ["--bs", str(args.bs)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        step = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
        alone = alone or step
        told = f"{step['seconds']:.3f} s a step measured, {predicted(alone, step, count):.3f} s predicted"
        network = f"{sum(sent(step, count).values()) / 1e6:.1f} MB sent at {step['bytes_a_second'] / 1e6:.0f} MB/s"
        print(f"{count} processes: {told}; {network}", flush=True)


def sizes_of(config: Config, model: PIR) -> dict[str, int]:
    """What the bytes of a step depend on."""
    captions = config.batch_size_train * config.captions_per_image
    gathers = 2  # pictures' and captions' features, of the contrastive or the triplet loss
    if config.use_affil_loss:  # captions' again and a centre a row; pictures' too where centres are of all
        gathers += 2 if config.center_scope == "process" else 3
    return count_parameters(model) | {"captions": captions, "dim": config.embed_dim, "gathers": gathers}


def sent(sizes: Mapping[str, float], count: int) -> dict[str, float]:
    """Bytes that a process of `count` gets of the others' features and their gradients, and sends for the mean."""
    features = 2 * sizes["gathers"] * (count - 1) * sizes["captions"] * sizes["dim"] * 4
    return {"features": features, "gradients": 2 * (count - 1) / count * sizes["trained"] * 4}


def predicted(alone: Mapping[str, float], step: Mapping[str, float], count: int) -> float:
    """Seconds of a step without any overlap: the arithmetic of one process, and what is sent at the probe's speed."""
    share = step["captions"] / alone["captions"]
    return alone["seconds"] * share + sum(sent(step, count).values()) / step["bytes_a_second"]


def measured(config: Config, steps: int, global_batch: int | None) -> dict[str, float]:
    """The median time of a step, after one to warm up, the same number on every process; and the network's speed."""
    device = processes.start("cpu")
    batch = process_batch(config.batch_size_train, global_batch, processes.world_size())
    torch.manual_seed(0)
    model = build_pir(config).train()
    parallel, optimizer = processes.in_parallel(model), create_optimizer(config.optimizer, model)
    given = random_batch(replace(config, batch_size_train=batch), min(TOKENS, config.max_tokens))
    images, idx = normalise(given.images), given.idx + batch * processes.rank()
    times = []
    for _ in range(steps + 1):
        processes.barrier()
        started = time.perf_counter()
        loss = parallel(images, given.ids, given.attention_mask, idx=idx, label=given.label)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - started)
    slowest = processes.gather_uneven(torch.tensor([statistics.median(times[1:])], device=device)).max().item()
    speed = bytes_a_second(processes.world_size())
    sizes = sizes_of(config, model) | {"captions": len(given.captions)}
    processes.stop()
    return sizes | {"seconds": slowest, "bytes_a_second": speed}


def bytes_a_second(count: int) -> float:
    """How fast an all_reduce of `PROBE` numbers is, by the bytes that a process sends for it; no limit alone."""
    if count == 1:
        return float("inf")
    numbers, times = torch.ones(PROBE), []
    for _ in range(4):
        processes.barrier()
        started = time.perf_counter()
        dist.all_reduce(numbers)
        times.append(time.perf_counter() - started)
    return 2 * (count - 1) / count * numbers.nbytes / statistics.median(times[1:])


if __name__ == "__main__":
    run_cli(main)
