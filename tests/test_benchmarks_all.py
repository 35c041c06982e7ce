"""All benchmarks by one command: what they found stands beside the goals, and one that fails stops no other."""

import json

import pytest

from benchmarks import all as everything
from utils.errors import InputError


def test_what_was_found_stands_beside_the_goals(tmp_path):
    (tmp_path / "rank.json").write_text(json.dumps({"ratio": 12.5, "over_product": 1.7}))
    rows = {(row["benchmark"], row["figure"]): row for row in everything.summary(tmp_path)}
    assert len(rows) == len(everything.GOALS)
    assert rows["rank", "ratio"]["found"] == 12.5 and rows["rank", "ratio"]["reached"] is True
    assert rows["rank", "over_product"]["reached"] is False
    assert rows["embed", "texts_ratio"]["found"] is None and rows["embed", "texts_ratio"]["reached"] is None
    machine = {"processor": "Some", "cores": 2, "flags": ["avx2"], "torch": "2", "threads": 1}
    lines = everything.table([*rows.values()], machine).splitlines()
    assert "| ranks, times as fast as by sorting (`rank`) | >= 10 | 12.5 | yes |" in lines
    assert lines[-1] == "Some, 2 cores, avx2; torch 2, 1 threads"


def test_each_is_run_with_its_own_arguments_and_a_failing_one_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    commands = []

    def run(command):
        commands.append(command)
        return type("Done", (), {"returncode": int("embed" in command[1])})

    monkeypatch.setattr(everything.subprocess, "run", run)
    (tmp_path / "embed.json").write_text('{"texts_ratio": 9}')  # of an earlier run
    given = ["--only", "embed", "rank", "start_up", "--repeats", "3", "--override", "precision=auto", "--profile"]
    assert everything.main(["--output", str(tmp_path), *given]) == 1
    (embed, rank, start_up) = (command[2:] for command in commands)
    assert embed[2:] == ["--repeats", "3", "--profile", "--override", "precision=auto"]
    assert rank == ["--output", str(tmp_path / "rank.json"), "--repeats", "3", "--profile"]
    assert start_up[2:] == ["--repeats", "3"]
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["failed"] == ["embed"] and not any(row["found"] for row in written["figures"])
    assert written["machine"]["cores"] >= 1 and "embed" in capsys.readouterr().err
    assert (tmp_path / "summary.md").read_text().startswith("| what | goal |")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "--output"),
        (["--output", "out", "--only", "sleep"], "invalid choice"),
        (["--output", "out", "--repeats", "0"], "give 1 or more"),
        (["--output", __file__], "is a file"),
    ],
)
def test_mistakes_are_one_line(given, said):
    with pytest.raises(InputError, match=said):
        everything.main(given)
