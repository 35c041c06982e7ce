"""How `Search.py index` starts itself."""

from pathlib import Path

import pytest

from search.arguments import search_arguments
from search.embedding import _workers
from search.launching import _without_dist, gather_objects, is_started, of_main, start_command
from tests.processes import run_on_processes
from utils.launch import Processes

SCRIPT = Path("Search.py")


def test_one_process_needs_no_launcher_and_several_have_torchs():
    one = start_command(SCRIPT, ["index", "--images", "x"], Processes(1, "cpu", {}))
    assert one[1:] == ["Search.py", "index", "--images", "x", "--device", "cpu"]
    two = start_command(SCRIPT, ["index", "--images", "x"], Processes(2, "cuda", {}))
    assert two[1:5] == ["-m", "torch.distributed.launch", "--use_env", "--nproc_per_node"]
    assert two[-2:] == ["--device", "cuda"]


@pytest.mark.parametrize("given", [["--dist", "cpu2"], ["--dist=cpu2"]])
def test_the_preset_is_not_handed_on(given):
    assert _without_dist(["index", *given, "--images", "x"]) == ["index", "--images", "x"]


def test_a_process_with_a_device_does_the_work_itself(monkeypatch):
    assert is_started(search_arguments(["index", "--images", "x", "--device", "cpu"]))
    assert not is_started(search_arguments(["index", "--images", "x"]))


def told(name):
    from utils.processes import rank

    return gather_objects(f"{name} {rank()}"), of_main(lambda: f"found by {rank()}")


def test_processes_tell_each_other_what_they_have_and_what_the_first_found():
    everyone = ["process 0", "process 1"]
    assert run_on_processes(2, told, "process") == [(everyone, "found by 0")] * 2
    assert told("alone") == (["alone 0"], "found by 0")


@pytest.mark.parametrize(
    ("cores", "on_card", "readers"),
    [(1, False, 0), (2, False, 0), (4, False, 2), (1, True, 1), (4, True, 3), (64, True, 8)],
)
def test_beside_a_model_on_few_cores_no_process_reads(monkeypatch, cores, on_card, readers):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert _workers(None, on_card) == readers
    assert _workers(5, on_card) == 5
