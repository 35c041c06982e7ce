"""How a run ends: run.py killed, stopped by a signal, a process of it killed; with the real launcher and a stand-in."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import run
from tests.test_run import is_running, reports, start_run, wait_for

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found through /proc")


def started(folder: Path) -> set[int]:
    """The processes of a run of two: the launcher, both ranks and a helper of each."""
    wait_for(lambda: len(reports(folder)) == 2)
    pids = {pid for rank in reports(folder) for pid in rank["pids"]}
    assert len(pids) == 5 and all(is_running(pid) for pid in pids)
    return pids


@pytest.mark.parametrize("deaf", [False, True])
def test_when_run_py_is_killed_its_launcher_and_all_processes_end(tmp_path, deaf):
    process = start_run(tmp_path, "killed", deaf=deaf, helper=True, then="time.sleep(60)")
    pids = started(tmp_path / "killed")
    process.kill()
    process.wait()
    wait_for(lambda: not any(is_running(pid) for pid in pids), seconds=5)


def test_when_what_runs_run_py_is_killed_with_it_all_ends(tmp_path):
    """A study: killed, it takes run.py, the launcher and the processes with it."""
    outer = f"""
import sys
sys.path.insert(0, {str(run.ROOT)!r})
from utils.launch import run_to_end
run_to_end([sys.executable, "-c", {inner_command("['sleep', '60']")!r}], {{}})
"""
    process = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True)
    inner = int(process.stdout.readline())
    assert is_running(inner)
    process.kill()
    process.wait()
    wait_for(lambda: not is_running(inner), seconds=5)


def inner_command(command: str) -> str:
    return f"""
import os, sys
sys.path.insert(0, {str(run.ROOT)!r})
from utils.launch import run_to_end
say = "import os, sys; print(os.getpid(), flush=True); os.execvp(sys.argv[1], sys.argv[1:])"
run_to_end([sys.executable, "-c", say, *{command}], {{}})
"""


def test_the_watching_process_ends_with_the_run():
    watched = "import os; print(*open(f'/proc/{os.getppid()}/task/{os.getppid()}/children').read().split())"
    code = f"""
import sys, subprocess
sys.path.insert(0, {str(run.ROOT)!r})
from utils.launch import run_to_end
run_to_end([sys.executable, "-c", {watched!r}], {{}})
print(*open("/proc/self/task/" + str(__import__("os").getpid()) + "/children").read().split())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    during, after = done.stdout.split("\n")[:2]
    assert len(during.split()) == 2 and after == "", done.stderr  # the watching process and the command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_with_one_line_and_no_traceback(tmp_path, number):
    process = start_run(tmp_path, "stopped", helper=True, then="time.sleep(60)")
    pids = started(tmp_path / "stopped")
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert output == f"{number.name}: ending all processes\n"
    assert process.returncode == 128 + number
    assert not any(is_running(pid) for pid in pids)


def test_a_signal_asks_the_processes_before_it_kills_them(tmp_path):
    leave = "def leave(*_): open(file + '.left', 'w').close(); sys.exit(0)\nsignal.signal(signal.SIGTERM, leave)\n"
    process = start_run(tmp_path, "asked", helper=True, then=leave + "open(file + '.ready', 'w')\ntime.sleep(60)")
    wait_for(lambda: len(list((tmp_path / "asked").glob("*.ready"))) == 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert len(list((tmp_path / "asked").glob("*.left"))) == 2


def test_a_signal_before_the_processes_are_there_is_answered_with_one_line(tmp_path):
    process = start_run(tmp_path, "early", then="time.sleep(60)")
    wait_for(lambda: children_of(process.pid))
    time.sleep(0.5)  # in the launcher's imports
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert output == "SIGTERM: ending all processes\n"


def children_of(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_killed_process_is_said_to_be_where_its_reason_stands(tmp_path):
    then = "os.kill(os.getpid(), signal.SIGKILL) if os.environ['RANK'] == '1' else time.sleep(60)"
    process = start_run(tmp_path, "lost", then=then)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    last = output.splitlines()[-1]
    assert last.startswith("the run failed (exit code 1)") and "killed (Signal 9" in last and last.endswith("in it")
    assert "Signal 9 (SIGKILL)" in output  # the launcher's report, which the line points at


def test_an_elastic_clusters_variables_do_not_have_a_failure_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PET_MAX_RESTARTS", "2")
    monkeypatch.setenv("PET_RDZV_BACKEND", "c10d")
    process = start_run(tmp_path, "once", then="print('tried', flush=True); sys.exit(3)")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert 1 <= output.count("tried\n") <= 2  # once a process; the first to fail may end the other
