"""One folder, one run at a time; evaluations that follow each other in a folder all keep their results."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils import output
from utils.earlier import keep_earlier
from utils.errors import InputError

ROOT = Path(__file__).parents[1]
HOLDER = "import sys, time; from pathlib import Path; from utils import output\n"
HOLDER += "output.lock(Path(sys.argv[1])); print('has it', flush=True); time.sleep(60)"


@pytest.fixture
def holder(tmp_path):
    """Another process that has the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "has it\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_that_another_run_writes_to_is_refused_by_name(holder, tmp_path):
    for look in (output.lock, output.check_unlocked):
        with pytest.raises(InputError, match=rf"in use by another run \(process {holder.pid} on "):
            look(tmp_path)


def test_the_lock_of_a_killed_run_is_free(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / output.LOCK).exists()
    output.check_unlocked(tmp_path)
    output.lock(tmp_path)
    output.unlock(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_ends_leaves_no_lock_and_may_lock_twice(tmp_path):
    output.lock(tmp_path)
    output.lock(tmp_path)
    output.unlock(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_of_many_runs_started_together_one_gets_the_folder(tmp_path):
    code = HOLDER.replace("time.sleep(60)", "time.sleep(3)").replace("output.lock", "time.sleep(1); output.lock")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for _ in range(4)
    ]
    assert sorted(process.communicate()[0] for process in started) == [b"", b"", b"", b"has it\n"]


def test_run_py_refuses_a_folder_in_use_before_anything_starts(holder, tmp_path):
    command = [
        sys.executable,
        "run.py",
        "--task",
        "itr_demo",
        "--dist",
        "cpu",
        "--overwrite",
        "--output_dir",
        str(tmp_path),
    ]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "in use by another run" in done.stderr
    assert time.monotonic() - started < 30


# ---- evaluations ----


def evaluation(folder, test_file, weights, r_mean):
    """What an evaluation writes."""
    keep_earlier(folder)
    (folder / "config.yaml").write_text(f"test_file: {test_file}\n")
    (folder / "ranks.npz").write_text(str(r_mean))
    result = {"test_file": test_file, "weights_sha256": weights, "r_mean": r_mean, "epoch": None}
    (folder / "result.json").write_text(json.dumps(result))


def test_evaluations_in_one_folder_each_keep_their_result(tmp_path):
    given = [("a/rsicd_test.json", "1" * 64), ("a/rsitmd_test.json", "1" * 64), ("a/rsicd_test.json", "2" * 64)]
    given += [given[0], given[0]]
    for number, (test_file, weights) in enumerate(given):
        output.check_output(tmp_path, resume=False, overwrite=False, evaluate=True)
        evaluation(tmp_path, test_file, weights, number)
    kept = {path.parent.name: json.loads(path.read_text())["r_mean"] for path in tmp_path.glob("earlier/*/result.json")}
    assert kept == {
        "rsicd_test_11111111": 0,
        "rsitmd_test_11111111": 1,
        "rsicd_test_22222222": 2,
        "rsicd_test_11111111_2": 3,
    }
    assert all((path / "ranks.npz").exists() and (path / "config.yaml").exists() for path in tmp_path.glob("earlier/*"))
    assert json.loads((tmp_path / "result.json").read_text())["r_mean"] == 4


def test_an_evaluation_into_a_trained_runs_folder_still_asks(tmp_path):
    for name in ("result.json", "log.txt", "checkpoint_best.pth"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="already holds a run"):
        output.check_output(tmp_path, resume=False, overwrite=False, evaluate=True)
