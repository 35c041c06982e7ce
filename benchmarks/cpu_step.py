"""The light preset's training step on a CPU with the data taken out: what each of its measures is worth.

    python benchmarks/cpu_step.py

runs the cases one after the other, each in a process of its own, and prints seconds a step (the median) and the
ratio to the step as shipped.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from models.build import build_pir  # noqa: E402
from models.encoders import PictureEncoder  # noqa: E402
from optim import create_optimizer  # noqa: E402
from utils.config import config_from_file  # noqa: E402
from utils.launch import CPU_SETTINGS  # noqa: E402
from utils.processes import autocast, autocast_dtype  # noqa: E402

CASES = ("as shipped", "common stages twice", "memory given back", "depthwise in bf16", "float32")
TOKENS = 24  # of the longest caption in a usual batch


def main() -> None:
    """Run every case, or in a child one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(seconds_a_step(args.case, args.steps))
        return
    measured = {}
    for case in CASES:
        kept = {} if case == "memory given back" else CPU_SETTINGS
        command = [sys.executable, __file__, "--case", case, "--steps", str(args.steps)]
        done = subprocess.run(command, env=os.environ | kept, capture_output=True, text=True, check=True)
        measured[case] = float(done.stdout)
        print(f"{case:20} {measured[case]:6.2f} s a step, {measured[case] / measured[CASES[0]]:.2f} times", flush=True)


def seconds_a_step(case: str, steps: int) -> float:
    """The median time of a step of the light preset on random weights and inputs, after one to warm up."""
    os.chdir(ROOT)
    config = config_from_file("configs/Retrieval_rsicd_lite.yaml")
    model = build_pir(config).train()
    # Both start from the same file.
    model.instruction_encoder.backbone.load_state_dict(model.vision_encoder.backbone.state_dict())
    if case == "common stages twice":
        model.common_stages = None
    if case == "depthwise in bf16":
        for encoder in model.modules():
            if isinstance(encoder, PictureEncoder):
                without_hooks(encoder.backbone)
    optimizer = create_optimizer(config.optimizer, model)
    batch, captions = config.batch_size_train, config.batch_size_train * config.captions_per_image
    images = torch.randn(batch, 3, config.image_res, config.image_res)
    ids = torch.randint(1000, 30000, (captions, TOKENS))
    idx = torch.arange(batch).repeat_interleave(config.captions_per_image)
    dtype = None if case == "float32" else autocast_dtype(config.precision, torch.device("cpu"))
    times = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        with autocast(dtype, torch.device("cpu")):
            loss = model(images, ids, torch.ones_like(ids), idx=idx, label=idx % 31)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def without_hooks(backbone: torch.nn.Module) -> None:
    """Leave the depthwise convolutions in the autocast."""
    for module in backbone.modules():
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()


if __name__ == "__main__":
    main()
