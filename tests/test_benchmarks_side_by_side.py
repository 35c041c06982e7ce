"""What the benchmarks share: turns, ratios within a round, and a process that has the environment it was given."""

import os

from benchmarks.side_by_side import (
    in_turns,
    launched_environment,
    own_process,
    plain_environment,
    ratio,
    spread,
)
from utils.launch import CPU_SETTINGS


def test_ways_take_turns_and_the_first_round_only_warms_up():
    done, ticks = [], iter(range(100))
    ways = {name: lambda name=name: done.append(name) for name in ("plain", "ours")}
    times = in_turns(ways, 2, clock=lambda: next(ticks), after=lambda: done.append("cleared"))
    assert done == ["plain", "cleared", "ours", "cleared"] * 3
    assert {name: len(of) for name, of in times.items()} == {"plain": 2, "ours": 2}


def test_a_ratio_is_the_median_of_those_within_a_round():
    times = {"plain": [6.0, 12.0, 20.0], "ours": [1.0, 3.0, 4.0]}
    assert ratio(times, "plain", "ours") == 5.0
    assert spread(times) == {"plain": [6.0, 12.0, 20.0], "ours": [1.0, 3.0, 4.0]}


def test_a_process_of_its_own_has_the_environment_it_was_given_and_no_other(monkeypatch):
    monkeypatch.setenv("OF_THE_PARENT", "1")
    before = dict(os.environ)
    given = {name: value for name, value in before.items() if name != "OF_THE_PARENT"} | {"OF_THE_CHILD": "2"}
    with own_process(given) as call:
        assert call(os.getenv, "OF_THE_CHILD") == "2" and call(os.getenv, "OF_THE_PARENT") is None
        assert call(os.getpid) == call(os.getpid) != os.getpid()
    assert dict(os.environ) == before


def test_a_plain_environment_lacks_only_the_launchers_settings(monkeypatch):
    for name in CPU_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    launched, plain = launched_environment(), plain_environment()
    assert {name: launched[name] for name in CPU_SETTINGS} == CPU_SETTINGS
    assert {name for name in launched if name not in plain} == set(CPU_SETTINGS)
