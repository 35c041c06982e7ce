"""Progress, printed lines, log.txt, JSON files, TensorBoard curves and running means."""

import io
import json
import os
import re

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils import logs, processes
from utils.errors import InputError
from utils.logs import Curves, Meters, append_line, progress, say, write_json
from utils.resumed_log import truncate_log

UNREADABLE = torch.ones((), device="meta")  # reading its value raises


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves by hand."""
    time = [100.0]
    monkeypatch.setattr(logs, "monotonic", lambda: time[0])
    return time


@pytest.fixture
def other_rank(monkeypatch):
    monkeypatch.setattr(processes, "rank", lambda: 1)


def run(clock, seconds, bar, **figures):
    items = []
    for item in bar:
        clock[0] += seconds
        bar.show(**figures)
        items.append(item)
    return items


def test_progress_gives_every_item_in_order(clock):
    assert run(clock, 1, progress("abc", 3, "x")) == ["a", "b", "c"]


def test_progress_off_a_terminal_prints_a_line_every_so_many_seconds_with_the_time_left(clock, capsys):
    run(clock, 5, progress(range(10), 10, "epoch 1/2"))
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/2: 3/10, 00:15 elapsed, 00:35 left",
        "epoch 1/2: 6/10, 00:30 elapsed, 00:20 left",
        "epoch 1/2: 9/10, 00:45 elapsed, 00:05 left",
        "epoch 1/2: 10/10, 00:50 elapsed",
    ]


def test_progress_from_the_first_item_prints_that_too_and_then_as_ever(clock, capsys):
    run(clock, 5, progress(range(7), 7, "epoch 1/2", from_first=True), loss=torch.tensor(2.5))
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/2: 1/7, 00:05 elapsed, 00:30 left, loss 2.5",
        "epoch 1/2: 4/7, 00:20 elapsed, 00:15 left, loss 2.5",
        "epoch 1/2: 7/7, 00:35 elapsed, loss 2.5",
    ]


def test_progress_lines_follow_every_seconds(clock, capsys):
    run(clock, 5, progress(range(10), 10, "x", every_seconds=26))
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == ["x: 6/10", "x: 10/10"]


def test_progress_lines_carry_the_shown_figures(clock, capsys):
    run(clock, 20, progress(range(1), 1, "x"), loss=torch.tensor(2.34567, requires_grad=True), lr=6e-5)
    assert capsys.readouterr().err == "x: 1/1, 00:20 elapsed, loss 2.346, lr 6e-05\n"


def test_progress_reads_a_shown_tensor_only_when_a_line_is_due(clock):
    bar = progress(range(3), 3, "x")
    iterator = iter(bar)
    next(iterator)
    bar.show(loss=UNREADABLE)
    next(iterator)  # no line is due
    clock[0] += 20
    with pytest.raises((RuntimeError, NotImplementedError)):
        next(iterator)


def test_progress_shown_figures_keep_no_graph():
    weight = torch.ones((), requires_grad=True)
    bar = progress([0], 1, "x")
    bar.show(loss=weight * 2)
    assert not bar._figures["loss"].requires_grad


def test_progress_on_a_terminal_is_a_bar_with_an_estimate_and_the_figures(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    run(clock, 0.15, progress(range(4), 4, "epoch 1/2"), loss=0.5)  # quicker than the bar is drawn
    shown = logs.sys.stderr.getvalue().split("\r")
    assert re.search(r"epoch 1/2:  50%.* 2/4 \[\d\d:\d\d<\d\d:\d\d.*loss 0\.5", shown[2])
    assert re.search(r"epoch 1/2: 100%.* 4/4 .*loss 0\.5", shown[-1])


def test_progress_closes_its_bar_where_the_loop_is_left(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    with pytest.raises(KeyError):
        for _ in progress(range(4), 4, "x"):
            raise KeyError
    assert logs.sys.stderr.getvalue().endswith("\n")


def test_progress_of_nothing_and_of_fewer_items_than_announced_ends(clock, capsys):
    assert run(clock, 1, progress([], 0, "x")) == []
    assert run(clock, 1, progress([7], 5, "x")) == [7]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_other_ranks_are_silent(clock, monkeypatch, other_rank, stream, capsys):
    monkeypatch.setattr("sys.stderr", stream())
    assert run(clock, 20, progress(range(3), 3, "x"), loss=UNREADABLE) == [0, 1, 2]
    say("hello")
    assert logs.sys.stderr.getvalue() == "" and capsys.readouterr().out == ""


def test_say_prints_at_once(monkeypatch):
    pipe = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr("sys.stdout", pipe)
    say("epoch 0")
    assert pipe.buffer.getvalue() == b"epoch 0\n"


def test_say_clears_the_bar_before_it_prints(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("sys.stdout", terminal)
    for _ in progress(range(2), 2, "x"):
        say("hello")
    assert re.search(r"\r *\r(\x1b\[A)?hello\n", terminal.getvalue())


def test_append_line_adds_one_json_line_and_has_it_on_disk(tmp_path, monkeypatch):
    file, synced = tmp_path / "log.txt", []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(file.read_text()))
    append_line(file, {"epoch": 0, "loss": 1.5})
    append_line(file, {"epoch": 1, "note": "a\nb"})
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"epoch": 0, "loss": 1.5},
        {"epoch": 1, "note": "a\nb"},
    ]
    assert [text.count("\n") for text in synced] == [1, 2]


def test_truncate_log_drops_later_epochs_and_keeps_lines_as_they_are(tmp_path):
    file = tmp_path / "log.txt"
    file.write_text('{"epoch":  0}\n{"loss": 1, "epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n')
    truncate_log(file, 2)
    assert file.read_text() == '{"epoch":  0}\n{"loss": 1, "epoch": 1}\n'
    truncate_log(file, 0)
    assert file.read_text() == ""


@pytest.mark.parametrize("half", [b'{"epoch": 1, "lo', b'{"note": "\xc3', b"\0\0\0", b"12", b'{"loss": 1}'])
def test_truncate_log_drops_a_half_written_last_line(tmp_path, half):
    file = tmp_path / "log.txt"
    file.write_bytes(b'{"epoch": 0}\n' + half)
    truncate_log(file, 5)
    append_line(file, {"epoch": 1})
    assert file.read_text() == '{"epoch": 0}\n{"epoch": 1}\n'


def test_truncate_log_ends_a_whole_last_line(tmp_path):
    file = tmp_path / "log.txt"
    file.write_text('{"epoch": 0}')
    truncate_log(file, 1)
    assert file.read_text() == '{"epoch": 0}\n'


def test_truncate_log_leaves_alone_a_log_with_a_line_it_cannot_place(tmp_path):
    file = tmp_path / "log.txt"
    file.write_text('{"epoch": 0}\nmy note\n{"epoch": 1}\n')
    with pytest.raises(InputError, match=r"log\.txt line 2"):
        truncate_log(file, 1)
    assert file.read_text() == '{"epoch": 0}\nmy note\n{"epoch": 1}\n'


def test_truncate_log_of_no_log_makes_none(tmp_path):
    truncate_log(tmp_path / "log.txt", 3)
    assert not list(tmp_path.iterdir())


def test_write_json_is_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    write_json(file, {"r_mean": 24.46})
    assert json.loads(file.read_text()) == {"r_mean": 24.46} and os.listdir(tmp_path) == ["result.json"]
    with pytest.raises(TypeError):
        write_json(file, {"r_mean": object()})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_json(file, {"r_mean": 0})
    assert json.loads(file.read_text()) == {"r_mean": 24.46}


def test_truncate_log_is_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "log.txt"
    file.write_text('{"epoch": 0}\n{"epoch": 1}\n')
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        truncate_log(file, 1)
    assert file.read_text() == '{"epoch": 0}\n{"epoch": 1}\n'


def points(folder, name):
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, round(event.value, 4)) for event in events.Scalars(name)]


def test_curves_are_read_back_by_tensorboard_before_they_are_closed(tmp_path):
    with Curves(tmp_path) as curves:
        curves.add({"loss": 1.5, "lr": 0.25}, 0, "train/")
        curves.add({"r_mean": 20.0}, 3)
        assert points(tmp_path, "train/loss") == [(0, 1.5)]
        assert points(tmp_path, "train/lr") == [(0, 0.25)]
        assert points(tmp_path, "r_mean") == [(3, 20.0)]


def test_curves_of_a_resumed_run_replace_the_points_of_the_interrupted_epochs(tmp_path):
    for steps, value in ((range(4), 1.0), (range(2, 5), 2.0)):
        with Curves(tmp_path) as curves:
            for step in steps:
                curves.add({"loss": value}, step)
        for file in tmp_path.glob("events.*"):  # TensorBoard reads files in order of their names' seconds
            file.rename(tmp_path / file.name.replace("tfevents.", f"tfevents.{int(value)}", 1))
    assert points(tmp_path, "loss") == [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0), (4, 2.0)]


def test_curves_without_a_folder_do_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Curves(None) as curves:
        curves.add({"loss": 1.5}, 0)
    curves.close()
    assert not list(tmp_path.iterdir())


def test_meters_give_means_of_numbers_and_tensors():
    meters = Meters()
    meters.update(loss=torch.tensor(1.0, requires_grad=True), lr=0.5)
    meters.update(loss=torch.tensor(4.0))
    meters.update(loss=torch.tensor(4.0))
    assert meters.means() == {"loss": 3.0, "lr": 0.5}


def test_meters_without_values_have_no_means():
    assert Meters().means() == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_meters_lose_nothing_over_many_values_of_few_bits(dtype):
    meters, value = Meters(), torch.tensor(0.1, dtype=dtype)
    for _ in range(1000):
        meters.update(loss=value)
    assert meters.means() == {"loss": pytest.approx(float(value), rel=1e-12)}


def test_meters_read_no_tensor_before_the_means():
    meters = Meters()
    for _ in range(3):
        meters.update(loss=UNREADABLE)
    with pytest.raises((RuntimeError, NotImplementedError)):
        meters.means()


def test_meters_hold_values_as_they_were_when_counted():
    meters, temperature = Meters(), torch.tensor(1.0, dtype=torch.float64)
    meters.update(temp=temperature)
    temperature.fill_(9.0)
    assert meters.means() == {"temp": 1.0}
