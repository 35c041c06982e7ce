"""The benchmark of starting up: a training is waited for until its first progress and then ended."""

import json
import signal
import sys

import pytest

from benchmarks import start_up
from dataset.drawn.scenes import draw_scenes
from utils.errors import InputError

SMALL = ["--pictures", "8", "--repeats", "1"]
TALK = [sys.executable, "-c", "print('epoch 1/9: 1/4, now', flush=True); import time; time.sleep(600)"]


def test_the_figures_are_printed_written_and_drawn(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(start_up, "SCRIPTS", ("run.py", "Tables.py"))
    monkeypatch.setattr(start_up, "HELD_OUT", 2)
    monkeypatch.setattr(start_up, "training_command", lambda *_: TALK)
    output = tmp_path / "start_up.json"
    start_up.main([*SMALL, "--output", str(output)])
    figures, printed = json.loads(output.read_text()), capsys.readouterr().out
    assert 0 < figures["first_progress_seconds"] < 60 and 0 < figures["help_seconds"] < 60
    assert set(figures["seconds"]) == {"first progress", "run.py --help", "Tables.py --help"}
    assert f"help_seconds                 {figures['help_seconds']}" in printed and output.with_suffix(".png").exists()


def test_a_training_is_left_at_its_first_progress_and_then_ended(tmp_path):
    draw_scenes(tmp_path / "data", train=8, val=2, test=2)
    small = [*start_up.of_data(tmp_path / "data"), "batch_size_train=4", "num_workers=0"]
    config = start_up.ROOT / "configs/Retrieval_demo.yaml"
    run = start_up.at_progress(start_up.training_command(config, tmp_path / "run", small))
    assert run.poll() is None
    start_up.end([run])
    assert run.returncode == 128 + signal.SIGTERM and not (tmp_path / "run" / "result.json").exists()


def test_a_training_that_fails_is_told_by_its_own_line():
    talk = "print('error: no such data', flush=True); raise SystemExit(2)"
    with pytest.raises(InputError, match="ended before its first step: error: no such data"):
        start_up.at_progress([sys.executable, "-c", talk])


@pytest.mark.parametrize(
    ("given", "said"), [(["--pictures", "0"], "give 1 or more"), (["--override", "no=1"], "unknown key")]
)
def test_mistakes_are_one_line(given, said, monkeypatch):
    monkeypatch.setattr(start_up, "HELD_OUT", 2)
    with pytest.raises(InputError, match=said):
        start_up.main([*SMALL, *given])
