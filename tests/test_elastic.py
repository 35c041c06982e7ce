"""Several machines by torchrun alone: two agents that meet on this machine, and a process that is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.processes import log_lines
from tests.small_experiment import write_experiment
from utils.checkpoint import read_checkpoint
from utils.launch import unused_port

ROOT = Path(__file__).parents[1]
EPOCHS = 6


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    return write_experiment(folder, epochs=EPOCHS, is_baseline=True, batch_size_train=4)


def agents(experiment, output):
    """Two machines' torchrun, each with one process, of a run that goes on where one before it ended."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    launch += ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{unused_port()}", "--rdzv_id", "one"]
    launch += ["--local_addr", "127.0.0.1", "--max_restarts", "3", str(ROOT / "Retrieval.py")]
    launch += ["--config", str(experiment), "--output_dir", str(output), "--device", "cpu", "--resume"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # docs/scaling.md
    output.parent.mkdir(exist_ok=True)
    started = []
    for machine in range(2):
        with (output.parent / f"{output.name}{machine}.txt").open("w") as said:
            started.append(subprocess.Popen(launch, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT))
    return started


def wait_for(started, output):
    """Every agent's end, with what it said where it failed."""
    try:
        for machine, agent in enumerate(started):
            code = agent.wait(timeout=240)
            assert code == 0, (output.parent / f"{output.name}{machine}.txt").read_text()[-3000:]
    finally:
        for agent in started:
            agent.kill()


def test_a_run_of_two_machines_one_of_whose_processes_is_killed_ends_where_another_does(experiment, tmp_path):
    whole, cut = tmp_path / "runs/whole", tmp_path / "runs/cut"
    started = agents(experiment, cut)
    deadline = time.monotonic() + 200
    while not (cut / "resume.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(int((cut / ".lock").read_text().split()[1]), signal.SIGKILL)  # process 0, which has the folder
    assert not (cut / "result.json").exists(), "it finished before it could be killed"
    wait_for(started, cut)
    wait_for(agents(experiment, whole), whole)

    said = "".join((cut.parent / f"cut{machine}.txt").read_text() for machine in range(2))
    assert "going on with epoch" in said
    assert [line["epoch"] for line in log_lines(cut / "log.txt")] == list(range(EPOCHS))
    for name in ("checkpoint_best.pth", f"checkpoint_{EPOCHS - 1}.pth"):
        one, other = (read_checkpoint(folder / name) for folder in (whole, cut))
        assert len(one) > 20 and all(torch.equal(one[key], other[key]) for key in one)
    assert not (cut / ".lock").exists() and (cut / "result.json").exists()
