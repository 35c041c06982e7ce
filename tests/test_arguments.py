"""The programs' own command lines: what launchers and released commands pass, and what the environment announces."""

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils import announce, announced, processes
from utils.arguments import prior_arguments, retrieval_arguments
from utils.errors import InputError
from utils.launch import unused_port
from utils.training import Run

ROOT = Path(__file__).parents[1]
NEEDED = ("--config", "c.yaml", "--output_dir", "out")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in (*announced.NAMES, "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.setenv(name, "")  # so that what a test's code sets is undone
        monkeypatch.delenv(name)


@pytest.fixture(params=[retrieval_arguments, prior_arguments], ids=["retrieval", "prior"])
def parse(request, monkeypatch):
    def parse(*arguments: str) -> argparse.Namespace:
        monkeypatch.setattr("sys.argv", ["program", *NEEDED, *arguments])
        return request.param()

    return parse


def program(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, script, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


# --- what the released commands pass


@pytest.mark.parametrize("given", [("--local_rank", "3"), ("--local-rank", "3"), ("--local-rank=3",)])
def test_the_launchers_local_rank_is_taken_where_the_environment_has_none(parse, given):
    parse(*given)
    assert os.environ["LOCAL_RANK"] == "3"


def test_a_local_rank_of_none_changes_nothing(parse):
    parse("--local_rank", "-1")
    assert "LOCAL_RANK" not in os.environ


def test_a_local_rank_that_contradicts_the_environment_is_an_error(parse, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    parse("--local_rank", "1")
    with pytest.raises(InputError, match="--local_rank 0 contradicts LOCAL_RANK=1"):
        parse("--local_rank", "0")


def test_arguments_of_the_released_code_are_accepted_and_those_without_effect_said(parse, monkeypatch, capsys):
    args = parse("--world_size", "1", "--dist_url", "env://", "--distributed", "--bs", "-1")
    assert args.bs is None
    said = announced_lines(args, monkeypatch, capsys)
    assert said[-1].startswith("--world_size, --dist_url, --distributed: no effect here")
    assert "no effect" not in "".join(announced_lines(parse(), monkeypatch, capsys))


@pytest.mark.parametrize("given", ["auto", "cpu", "cuda", "cuda:1"])
def test_a_device_may_be_one_card(parse, given):
    assert parse("--device", given).device == given


@pytest.mark.parametrize("given", ["cuda:", "cuda:x", "tpu", "cuda:-1", ""])
def test_an_unknown_device_is_one_line_with_those_there_are(parse, given):
    with pytest.raises(InputError, match="give auto, cpu, cuda or cuda:N"):
        parse("--device", given)


def test_a_launcher_without_use_env_starts_the_program(tmp_path):
    """Of torch's own launcher: it gives --local-rank, and the program gets as far as its config."""
    launcher = (
        "-m",
        "torch.distributed.launch",
        "--nproc_per_node",
        "1",
        "--master_port",
        str(unused_port()),
        "Retrieval.py",
    )
    given = ("--config", str(tmp_path / "none.yaml"), "--output_dir", str(tmp_path / "out"))
    done = subprocess.run([sys.executable, *launcher, *given], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "none.yaml" in done.stderr and "unrecognized" not in done.stderr


# --- the device


@pytest.fixture
def two_cards(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_cards")
def test_a_card_named_is_the_card_taken(monkeypatch):
    assert processes.device_for("cuda:1") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert processes.device_for("cuda") == processes.device_for("auto") == torch.device("cuda", 1)
    with pytest.raises(InputError, match="no card 2: PyTorch sees 2"):
        processes.device_for("cuda:2")


@pytest.mark.usefixtures("two_cards")
def test_several_processes_do_not_share_a_card_named(monkeypatch):
    launch(monkeypatch, WORLD_SIZE="2")
    with pytest.raises(InputError, match="several processes"):
        processes.device_for("cuda:1")


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_cards_named_by_the_environment_but_not_there_are_an_error_also_with_auto(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(InputError, match=r"CUDA_VISIBLE_DEVICES=0,1"):
        processes.device_for(device)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert processes.device_for("auto") == torch.device("cpu")


# --- what the environment announces


def launch(monkeypatch, **changes: str) -> None:
    announcement = {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in (announcement | changes).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "environment",
    [{}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "1", "RANK": "0"}, {"MASTER_ADDR": "a", "RANK": ""}],
)
def test_without_all_of_a_launchers_variables_one_process_is_alone(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not announced.is_launched()
    assert processes.announced_world_size() == 1
    assert processes.start("cpu") == torch.device("cpu")
    assert not torch.distributed.is_initialized()


def test_all_four_variables_are_a_launch(monkeypatch):
    launch(monkeypatch, WORLD_SIZE="3", RANK="2")
    assert announced.is_launched() and processes.announced_world_size() == 3


@pytest.mark.parametrize("name", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
@pytest.mark.parametrize("empty", [True, False])
def test_an_incomplete_announcement_names_what_is_missing(monkeypatch, parse, name, empty):
    launch(monkeypatch, WORLD_SIZE="2")
    monkeypatch.setenv(name, "") if empty else monkeypatch.delenv(name)
    with pytest.raises(InputError, match=f"WORLD_SIZE=2.* but lacks {name}:"):
        parse()


@pytest.mark.parametrize(
    "wrong", [{"WORLD_SIZE": "two"}, {"RANK": "1"}, {"RANK": "-1"}, {"MASTER_PORT": "x"}, {"WORLD_SIZE": "0"}]
)
def test_an_impossible_announcement_is_one_line(monkeypatch, parse, wrong):
    launch(monkeypatch, **wrong)
    with pytest.raises(InputError, match=f"no possible process .*{next(iter(wrong))}="):
        parse()


@pytest.mark.parametrize("tasks", ["SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"])
def test_several_tasks_of_slurm_without_a_launcher_are_refused_with_the_command(monkeypatch, parse, tasks):
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv(tasks, "4")
    with pytest.raises(InputError, match=r"4 tasks .*srun --ntasks-per-node=1 python run\.py"):
        parse()
    launch(monkeypatch, WORLD_SIZE="4", RANK="1")
    parse()  # a launcher in a task of Slurm
    for name in announced.NAMES:
        monkeypatch.delenv(name)
    monkeypatch.setenv(tasks, "1")
    parse()


@pytest.mark.parametrize("script", ["Retrieval.py", "Prior.py"])
def test_a_program_alone_in_slurm_ends_before_it_writes(tmp_path, script):
    folder = tmp_path / "out"
    done = program(script, "--config", "c", "--output_dir", str(folder), SLURM_PROCID="0", SLURM_NTASKS="2")
    assert done.returncode == 2 and done.stderr.startswith("error: Slurm started 2 tasks")
    assert done.stderr.count("\n") == 1 and not folder.exists()


# --- the first lines of a run


class SomeConfig:
    def __init__(self, batch_size_train):
        self.batch_size_train = batch_size_train

    def to_dict(self):
        return {"train_file": ["one.json", "two.json"], "test_file": "test.json"}


def announced_lines(args: argparse.Namespace, monkeypatch, capsys, count: int = 1, batch: int = 128) -> list[str]:
    monkeypatch.setattr(processes, "world_size", lambda: count)
    run = Run(SomeConfig(batch), Path("out"), 42, torch.device("cpu"), False, False)
    announce.announce(run, args)
    return capsys.readouterr().out.splitlines()


def test_a_training_begins_with_its_device_data_and_batch(parse, monkeypatch, capsys):
    args = parse()
    assert announced_lines(args, monkeypatch, capsys, count=2) == [
        "cpu, 2 processes; one.json, two.json; global batch 256, 128 a process"
    ]
    args.evaluate = True
    assert announced_lines(args, monkeypatch, capsys) == ["cpu, 1 process; test.json"]


@pytest.mark.parametrize("config", ["configs/Retrieval_rsicd.yaml", "/elsewhere/Retrieval_rsitmd.yaml"])
def test_another_batch_than_the_published_one_is_said_where_a_released_config_trains(
    parse, monkeypatch, capsys, config
):
    args = parse("--config", config)
    lines = announced_lines(args, monkeypatch, capsys, count=4)
    assert lines[1].startswith("global batch 512; the published numbers are of 256")
    assert len(announced_lines(args, monkeypatch, capsys, count=2)) == 1
    assert len(announced_lines(parse(), monkeypatch, capsys, count=4)) == 1  # a config of one's own
    args.evaluate = True
    assert len(announced_lines(args, monkeypatch, capsys, count=4)) == 1


class Stop(Exception):
    """Ends a program at the place a test looks at."""


@pytest.mark.parametrize("script", ["Retrieval", "Prior"])
def test_a_program_says_its_first_lines_before_it_reads_data(monkeypatch, tmp_path, script):
    module = importlib.import_module(script)
    reader = "config_from_file" if script == "Retrieval" else "prior_config_from_file"
    monkeypatch.setattr(module, reader, lambda *given: "config")
    monkeypatch.setattr(module, "start_run", lambda args, config: "run")

    def announced_of(run, args):
        raise Stop(run, str(args.output_dir))

    monkeypatch.setattr(announce, "announce", announced_of)
    monkeypatch.setattr(module, "announce", announced_of, raising=False)  # Prior.py has it by name
    monkeypatch.setattr("sys.argv", [script, "--config", "c", "--output_dir", "out"])
    with pytest.raises(Stop, match="'run', 'out'"):
        module.main()


# --- arguments before heavy imports


@pytest.mark.parametrize("script", ["run.py", "Retrieval.py", "Prior.py", "Prepare.py", "Tables.py"])
def test_help_imports_neither_torch_nor_transformers(script):
    code = f"""
import runpy, sys
sys.argv = [{script!r}, "--help"]
sys.path.insert(0, ".")
try:
    runpy.run_path({script!r}, run_name="__main__")
except SystemExit as end:
    assert end.code == 0
print("imported:", *sorted({{"torch", "transformers", "timm", "matplotlib"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "imported:", done.stderr
    assert "--output_dir" in done.stdout


@pytest.mark.parametrize("script", ["Retrieval.py", "Prior.py"])
def test_a_mistake_in_the_arguments_is_one_line_before_heavy_imports(script):
    done = program(script, "--config", "c", "--output_dir", "out", "--seed", "many", PYTHONPROFILEIMPORTTIME="1")
    errors = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2 and len(errors) == 1 and "--seed" in errors[0]
    assert "| torch\n" not in done.stderr and "| transformers\n" not in done.stderr
