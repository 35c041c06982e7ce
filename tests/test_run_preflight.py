"""What run.py finds wrong before it starts any process, and how its command line reaches the program as given."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

import run
from tests.test_run import error_of, option
from utils import launch
from utils.announced import NAMES
from utils.prior_config import PriorConfig

ROOT = run.ROOT


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Neither cards nor variables of a launcher, and nothing is launched."""
    for name in (*NAMES, "CUDA_VISIBLE_DEVICES", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "count_cards", lambda: 0)
    monkeypatch.setattr(run, "run_to_end", lambda *given: pytest.fail("launched"))


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A config whose inputs are all there: eight pictures with a caption each; returns its file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "words").mkdir()
    entries = []
    for number in range(8):
        Image.new("RGB", (16, 16)).save(tmp_path / "images" / f"lake_{number}.png")
        entries.append({"caption": "a green park", "image": f"lake_{number}.png", "image_id": number, "label": 0})
    (tmp_path / "train.json").write_text(json.dumps(entries))
    evaluated = [{"image": entry["image"], "caption": [entry["caption"]]} for entry in entries]
    for split in ("val", "test"):
        (tmp_path / f"{split}.json").write_text(json.dumps(evaluated))
    for name in ("swin.pth", "prior.pth", "words/pytorch_model.bin", "words/vocab.txt"):
        (tmp_path / name).write_text("")
    sizes = {key: str(ROOT / file) for key, file in run_sizes().items()}
    file = tmp_path / "config.yaml"
    vision = json.loads(Path(sizes["vision_config"]).read_text()) | {"ckpt": "swin.pth"}
    values = {
        "train_file": ["train.json"], "val_file": "val.json", "test_file": "test.json", "image_root": "images",
        "text_config": sizes["text_config"], "vision_config": vision, "text_encoder": "words",
        "resnet_ckpt": "prior.pth", "batch_size_train": 4,
    }  # fmt: skip
    file.write_text(yaml.safe_dump(values))
    return file


def run_sizes() -> dict[str, str]:
    return {"vision_config": "configs/config_swinT_224.json", "text_config": "configs/config_bert.json"}


def told(config: Path, *arguments: str, dist: str = "cpu") -> str:
    return error_of("--task", "itr_demo", "--config", str(config), "--dist", dist, *arguments)


def launched(monkeypatch, config: Path, *arguments: str, dist: str = "cpu") -> list[str]:
    """The command that run.py launches."""
    commands: list[list[str]] = []
    monkeypatch.setattr(run, "run_to_end", lambda command, environment: commands.append(command) or 0)
    assert run.main(["--task", "itr_demo", "--config", str(config), "--dist", dist, *arguments]) == 0
    return commands[0]


def test_an_experiment_whose_inputs_are_there_is_launched(experiment, monkeypatch):
    assert launched(monkeypatch, experiment)
    assert launched(monkeypatch, experiment, dist="cpu2")


def test_everything_that_is_missing_is_told_at_once(experiment, tmp_path):
    for name in ("swin.pth", "prior.pth", "words/pytorch_model.bin", "train.json", "test.json"):
        (tmp_path / name).unlink()
    message = told(experiment, "--override", "tokenizer=no_words", "--override", "image_root=no_images")
    assert message.startswith("7 problems: ")
    for name in ("'swin.pth'", "'prior.pth'", "start folder words", "train.json", "test.json", "no_words", "no_images"):
        assert name in message


def test_missing_weights_of_a_package_are_told_with_the_others(experiment, tmp_path):
    (tmp_path / "prior.pth").unlink()
    message = told(experiment, "--override", "vision_config.ckpt=package:no-such-package/x.pth")
    assert message.startswith("2 problems") and "no-such-package is not installed" in message and "prior.pth" in message


def test_starts_are_not_looked_for_where_other_weights_take_their_place(experiment, tmp_path, monkeypatch):
    (tmp_path / "swin.pth").unlink()
    (tmp_path / "trained.pth").write_text("")
    assert launched(monkeypatch, experiment, "--checkpoint", "trained.pth", "--evaluate")
    assert launched(monkeypatch, experiment, "--load_ckpt_from", "trained.pth")
    assert "swin.pth" in told(experiment)


def test_looking_for_starts_on_disk_and_in_packages_brings_no_torch(experiment):
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import run
try:
    run.main(["--task", "itr_demo", "--dist", "cpu", "--config", {str(experiment)!r},
              "--override", "resnet_ckpt=package:timm/none.pth", "--override", "vision_config.ckpt=none.pth"])
except run.InputError as error:
    print(error, "torch" in sys.modules, "timm" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("2 problems") and done.stdout.endswith("False False\n"), done.stderr


def test_a_prior_s_missing_start_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = ("--task", "prior_aid", "--dist", "cpu", "--override", "class_folders=none", "--override", "start=none.pth")
    message = error_of(*start)
    assert message.startswith("2 problems") and "none.pth" in message and "class_folders" in message


def test_a_prior_names_the_annotation_files_it_reads():
    config = PriorConfig(train_file=("a.json", "b.json"), val_file="c.json", image_root="images")
    assert config.annotation_files == ["a.json", "b.json", "c.json"]
    assert PriorConfig(class_folders="scenes").annotation_files == []


@pytest.mark.parametrize(
    ("dist", "arguments", "share"),
    [
        ("cpu", ("--bs", "9"), 8),
        ("cpu3", (), 3),
        ("cpu2", ("--bs", "10"), 4),
        ("cpu2", ("--override", "batch_size_train=5"), 4),
    ],
)
def test_a_batch_that_a_process_cannot_fill_is_told(experiment, dist, arguments, share):
    assert f"a process {share} entries, less than one batch" in told(experiment, *arguments, dist=dist)


def test_the_share_counts_the_processes_of_all_machines(experiment):
    assert "gives a process 2 entries" in told(
        experiment, "--nnodes", "2", "--master_addr", "head", "--node_rank", "1", dist="cpu2"
    )


def test_an_output_folder_that_cannot_be_written_is_told(experiment):
    assert "--output_dir /proc/out cannot be written" in told(experiment, "--output_dir", "/proc/out")
    assert not Path("outputs").exists()


@pytest.mark.parametrize("name", ["output_dir", "config", "cache", "override", "checkpoint"])
def test_a_value_that_begins_with_a_dash_reaches_the_program(capsys, name):
    given = ("--task", "itr_demo", "--dist", "cpu", f"--{name}=-x=1", "--dry_run")
    assert run.main(list(given)) == 0
    command = shlex.split(capsys.readouterr().out)
    assert f"--{name}=-x=1" in command and f"--{name}" not in command


def test_a_value_that_begins_with_a_dash_is_read_by_the_program(tmp_path):
    given = ("--config=-none.yaml", "--output_dir=-x")
    done = subprocess.run(
        [sys.executable, str(ROOT / "Retrieval.py"), *given], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "-none.yaml" in done.stderr and done.stderr.count("\n") == 1


# --- cards, Slurm, variables of the launcher


@pytest.mark.parametrize("dry", [(), ("--dry_run",)])
def test_auto_does_not_fall_to_the_cpu_where_the_environment_names_cards(monkeypatch, dry):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    message = error_of("--task", "itr_demo", "--dist", "auto", *dry)
    assert "CUDA_VISIBLE_DEVICES=0,1" in message and "--dist cpu" in message
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert launch.processes_for("auto").device == "cpu"


def test_several_launchers_of_one_srun_are_refused(monkeypatch, capsys):
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    start = ("--task", "itr_demo", "--dist", "cpu", "--dry_run")
    assert "srun --ntasks-per-node=1" in error_of(*start)
    assert run.main([*start, "--nnodes", "2", "--master_addr", "head"]) == 0


def test_variables_of_elastic_clusters_are_kept_from_the_launcher_and_shown(monkeypatch, capsys):
    for name, value in {"PET_MAX_RESTARTS": "2", "PET_RDZV_BACKEND": "c10d", "PYTHON_EXEC": "/bin/false"}.items():
        monkeypatch.setenv(name, value)
    assert run.main(["--task", "itr_demo", "--dist", "cpu", "--dry_run"]) == 0
    line = capsys.readouterr().out
    assert line.startswith("env -u PET_MAX_RESTARTS -u PET_RDZV_BACKEND -u PYTHON_EXEC CUDA_VISIBLE_DEVICES=")
    code = "import os, sys; sys.exit(any(n.startswith('PET_') or n == 'PYTHON_EXEC' for n in os.environ))"
    assert launch.run_to_end([sys.executable, "-c", code], {}) == 0
    assert "PET_MAX_RESTARTS" in os.environ


def test_a_machine_that_waits_for_the_others_says_so(monkeypatch, experiment, capsys):
    together = (
        "--nnodes",
        "2",
        "--master_addr",
        "10.0.0.1",
        "--master_port",
        "29500",
        "--override",
        "batch_size_train=2",
    )
    launched(monkeypatch, experiment, *together, "--node_rank", "1")
    assert capsys.readouterr().err == "machine 1 of 2: waiting for machine 0 at 10.0.0.1:29500\n"
    launched(monkeypatch, experiment, *together)
    assert "waiting for the 1 others at 10.0.0.1:29500" in capsys.readouterr().err
    launched(monkeypatch, experiment, "--output_dir", "alone")
    assert capsys.readouterr().err == ""


def test_options_are_read_as_given():
    assert option(launch.option("bs", 4), "--bs") == "4"
    assert launch.option("seed", -1) == ["--seed=-1"]
