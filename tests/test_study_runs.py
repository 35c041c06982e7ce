"""study/runs.py and study/queue.py: what stands in a run's folder, and running what is to be done."""

import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from study import runs as study_runs
from study.places import Place
from study.plan import plan_rows, read_study
from study.queue import run_queue
from study.runs import State, runs_of, state_of, states_of
from tests.small_study import write_run, write_study
from utils.errors import InputError
from utils.typed import write_yaml

# What run.py's place holds in these tests. A row's name says what it does.
STAND_IN = """
import json, os, subprocess, sys, time
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder = given["--output_dir"]
row = folder.split("/")[-2]
print("arguments", sys.argv[1:], "cards", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
if row.startswith("bad"):
    print("ValueError: the picture is torn")
    print("the run failed (exit code 1): the reason stands above", file=sys.stderr)
    sys.exit(1)
if row.startswith("empty"):
    sys.exit(0)
if row.startswith("long"):
    helper = subprocess.Popen(["sleep", "60"], start_new_session=True)
    with open(folder + "/pids", "w") as stream:
        stream.write(f"{os.getpid()} {helper.pid}")
    time.sleep(60)
started = time.time()
if row.startswith("slow"):
    time.sleep(1.5)
with open(folder + "/result.json", "w") as stream:
    json.dump({"r_mean": 12.5, "span": [started, time.time()]}, stream)
"""


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """`planned("a", "b")`: runs of rows by these names with seed 1, run by the stand-in."""
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)
    monkeypatch.setattr(study_runs, "PROGRAM", program)

    def make(*names, seeds=(1,), overrides=()):
        study = read_study(write_study(tmp_path, {name: {} for name in names}), ["itr_demo"])
        return runs_of(plan_rows(study, overrides).values(), seeds, study.task, tmp_path / "out")

    return make


def test_seeds_come_one_after_another_each_with_all_rows(planned):
    assert [run.name for run in planned("a", "b", seeds=(1, 2))] == ["a seed 1", "b seed 1", "a seed 2", "b seed 2"]


def test_a_log_alone_does_not_look_like_a_run(planned):
    (run,) = planned("a")
    run.folder.mkdir(parents=True)
    (run.folder / "run.log").write_text("nothing yet")
    assert state_of(run) == State.NEW and not {"--resume", "--overwrite"} & set(run.command("cpu"))


@pytest.mark.parametrize(
    ("files", "state", "flag"),
    [
        (["config.yaml"], State.CUT, "--resume"),
        (["config.yaml", "log.txt", "checkpoint_best.pth", "resume.pth"], State.CUT, "--resume"),
        (["config.yaml", "log.txt", "checkpoint_best.pth"], State.CUT, "--resume"),
    ],
)
def test_what_was_cut_goes_on_or_starts_again(planned, files, state, flag):
    (run,) = planned("a")
    run.folder.mkdir(parents=True)
    for name in files:
        (run.folder / name).write_text("{}\n")
    write_yaml(run.row.config.to_dict(), run.folder / "config.yaml")
    assert state_of(run) == state
    assert run.command("cpu", state)[-1] == flag


def test_epochs_without_what_they_go_on_from_are_not_thrown_away(planned):
    (run,) = planned("a")
    run.folder.mkdir(parents=True)
    (run.folder / "log.txt").write_text("{}\n{}\n")
    with pytest.raises(InputError, match=r"no resume\.pth to go on from; move it away"):
        state_of(run)


def test_weights_of_a_finished_training_are_not_thrown_away(planned):
    (run,) = planned("a")
    run.folder.mkdir(parents=True)
    write_yaml(run.row.config.to_dict(), run.folder / "config.yaml")
    (run.folder / "checkpoint_best.pth").touch()
    assert state_of(run) == State.CUT
    (run.folder / "checkpoint_49.pth").touch()
    with pytest.raises(InputError, match="move it away"):
        state_of(run)


def test_the_result_of_an_evaluation_is_no_trained_row(planned, tmp_path):
    (run,) = planned("a")
    write_run(tmp_path / "out", "a", 1, tmp_path / "base.yaml", epoch=None)
    with pytest.raises(InputError, match="an evaluation's result, not a training's"):
        state_of(run)


def test_downloads_are_allowed_to_a_run_only_where_asked(planned):
    (run,) = planned("a")
    assert "--download" not in run.command("cpu")
    assert "--download" in replace(run, download=True).command("cpu")


def test_a_done_run_must_be_of_the_same_config_and_seed(planned, tmp_path):
    (run,) = planned("a")
    write_run(tmp_path / "out", "a", 1, tmp_path / "base.yaml", ["num_workers=9"])
    assert state_of(run) == State.DONE
    (other,) = planned("a", overrides=["filter_size=7", "optimizer.lr=1"])
    with pytest.raises(InputError, match=r"differs in filter_size, optimizer\.lr from what a seed 1 is now"):
        states_of([other])
    file = run.folder / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seed": 2}))
    with pytest.raises(InputError, match="differs in seed from"):
        state_of(run)


def test_a_result_older_than_a_key_is_taken_as_its_default(planned, tmp_path):
    (run,) = planned("a")
    file = write_run(tmp_path / "out", "a", 1, tmp_path / "base.yaml") / "result.json"
    values = json.loads(file.read_text())
    del values["config"]["average_decay"]
    file.write_text(json.dumps(values))
    assert state_of(run) == State.DONE


def test_a_result_that_is_no_number_is_told_before_it_counts_as_done(planned, tmp_path):
    (run,) = planned("a")
    file = write_run(tmp_path / "out", "a", 1, tmp_path / "base.yaml") / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"r_mean": float("nan")}))
    with pytest.raises(InputError, match="it holds NaN"):
        state_of(run)


def test_a_cut_run_of_another_config_is_refused(planned):
    (run,) = planned("a")
    run.folder.mkdir(parents=True)
    write_yaml(run.row.config.to_dict() | {"head": 2}, run.folder / "config.yaml")
    with pytest.raises(InputError, match="cut short that differs in head"):
        state_of(run)


def test_a_failing_run_does_not_stop_the_others_and_is_listed_at_the_end(planned, capsys):
    runs = planned("bad_row", "good", "empty", "good_too")
    assert run_queue(runs, [Place("cpu")]) == 1
    told = capsys.readouterr()
    listed = [line for line in told.err.splitlines() if line.startswith("failed: ")]
    assert len(listed) == 2
    log = runs[0].folder / "run.log"
    assert listed[0] == f"failed: bad_row seed 1: ValueError: the picture is torn (log: {log})"
    assert "result.json cannot be read" in listed[1]
    assert "2/4 good seed 1 done in 0:00:0" in told.out and "r_mean 12.50" in told.out
    assert "4/4 good_too seed 1 starts, about 0:00:0" in told.out
    assert "--dist" in log.read_text() and "arguments ['--task'" in log.read_text()


def test_what_another_study_has_done_meanwhile_is_not_run_again(planned, tmp_path, capsys):
    (run,) = planned("a")
    write_run(tmp_path / "out", "a", 1, tmp_path / "base.yaml")
    before = (run.folder / "result.json").read_text()
    assert run_queue([run], [Place("cpu")]) == 0
    assert "1/1 a seed 1 was done meanwhile" in capsys.readouterr().out
    assert (run.folder / "result.json").read_text() == before


def test_groups_work_side_by_side_each_with_its_cards(planned):
    runs = planned("slow_a", "slow_b")
    places = [Place("auto", {"CUDA_VISIBLE_DEVICES": cards}) for cards in ("0,1", "2")]
    assert run_queue(runs, places) == 0
    spans = [json.loads((run.folder / "result.json").read_text())["span"] for run in runs]
    assert max(start for start, _ in spans) < min(end for _, end in spans)
    assert ["cards 0,1" in (run.folder / "run.log").read_text() for run in runs] == [True, False]
    assert "cards 2" in (runs[1].folder / "run.log").read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_every_run_and_what_it_started(planned, number, code):
    runs = planned("long_a", "long_b", "never")

    def interrupt():
        deadline = time.monotonic() + 20
        while not all((run.folder / "pids").exists() and (run.folder / "pids").read_text() for run in runs[:2]):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    assert run_queue(runs, [Place("cpu"), Place("cpu")]) == code
    pids = [pid for run in runs[:2] for pid in (run.folder / "pids").read_text().split()]
    assert len(pids) == 4 and not any(alive(pid) for pid in pids)
    assert not runs[2].folder.exists()


def test_when_a_study_is_killed_its_runs_and_what_they_started_end(planned):
    runs = planned("long_a", "never")
    study = multiprocessing.get_context("fork").Process(target=run_queue, args=(runs, [Place("cpu")]))
    study.start()
    pids, file = [], runs[0].folder / "pids"
    deadline = time.monotonic() + 20
    while len(pids) < 2 and time.monotonic() < deadline:
        pids = file.read_text().split() if file.exists() else []
        time.sleep(0.05)
    assert len(pids) == 2 and all(alive(pid) for pid in pids)
    study.kill()
    study.join()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids) and not runs[1].folder.exists()


def alive(pid: str) -> bool:
    """Whether the process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_folder_that_another_process_works_in_is_left_to_it(planned, capsys):
    (run,) = planned("good")
    run.folder.mkdir(parents=True)
    with (run.folder / "run.log").open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=log)
    try:  # the lock is that of the child now, as that of a run whose study was killed
        assert run_queue([run], [Place("cpu")]) == 1
        assert "is at work in it" in capsys.readouterr().err and not (run.folder / "result.json").exists()
    finally:
        holder.communicate(b"\n")
    assert run_queue([run], [Place("cpu")]) == 0


def test_a_study_s_global_batch_reaches_its_runs_and_a_finished_run_of_another_is_refused(planned, tmp_path):
    run = planned("a")[0]
    assert "--bs" not in run.arguments()
    pinned = replace(run, row=replace(run.row, bs=256))
    assert pinned.arguments()[pinned.arguments().index("--bs") + 1] == "256"
    write_run(tmp_path / "out", "a", 1, Path(run.row.config_file), run.row.overrides, batch_size=512)
    assert state_of(run) == State.DONE
    with pytest.raises(InputError, match="differs in the global batch"):
        state_of(pinned)
    assert state_of(replace(run, row=replace(run.row, bs=512))) == State.DONE
