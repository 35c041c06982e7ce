"""Files of torch.save and the output folder."""

import argparse
import os
import pickle
import shlex
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarfloat import ScalarFloat

from utils import output
from utils.checkpoint import read_checkpoint, read_torch_file, save
from utils.errors import InputError
from utils.typed import read_yaml


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("code of a weights file was run",))


def test_code_in_a_weights_file_is_refused_and_not_run(tmp_path):
    torch.save({"model": {}, "config": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(InputError, match="nothing of it was run"):
        read_torch_file(tmp_path / "harmful.pth")


class Command:
    """Runs a shell command when it is unpickled."""

    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        return (os.system, (self.text,))


RELEASED_YAML = Path(__file__).parents[1] / "configs/Retrieval_rsicd.yaml"
ODD_YAML = """\
a: 'single'  # a comment
b: "double"
c: 0x1F
d: [1, 2.50, 6E-5, 1_000]
e: |
  kept lines
f: &anchor True
g: {inner: {lr: 6e-5}, list: [{x: 1}]}
h: *anchor
i: !!omap [x: 1]
j: !tag {x: 1}
"""
ODD = {
    **{"a": "single", "b": "double", "c": 31, "d": [1, 2.5, 6e-5, 1000], "e": "kept lines\n", "f": True},
    **{"g": {"inner": {"lr": 6e-5}, "list": [{"x": 1}]}, "h": True, "i": {"x": 1}, "j": {"x": 1}},
}


@pytest.mark.parametrize("zipped", [True, False])  # torch.save's format, and that of before 2020
@pytest.mark.parametrize(
    ("text", "values"),
    [(RELEASED_YAML.read_text(), read_yaml(RELEASED_YAML)), (ODD_YAML, ODD)],
    ids=["released", "odd"],
)
def test_a_config_as_ruamel_read_it_does_not_hinder_loading(tmp_path, text, values, zipped):
    reader = YAML()
    reader.preserve_quotes = True
    config = reader.load(text)
    assert type(config) is CommentedMap
    content = {"model": OrderedDict(a=torch.arange(3.0)), "config": config}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_checkpoint(tmp_path / "old.pth")["a"], torch.arange(3.0))
    assert read_torch_file(tmp_path / "old.pth")["config"] == values


def test_nothing_of_ruamel_is_made_or_run_from_a_checkpoint(monkeypatch, tmp_path):
    torch.save({"model": {"a": torch.ones(2)}, "config": YAML().load(RELEASED_YAML)}, tmp_path / "old.pth")
    for kind in (CommentedMap, ScalarFloat):
        monkeypatch.setattr(kind, "__new__", lambda *given, **named: pytest.fail("ruamel's code was run"))
    assert type(read_torch_file(tmp_path / "old.pth")["config"]["optimizer"]["lr"]).__module__ == "utils.stand_ins"


def test_numpys_numbers_beside_the_tensors_are_left_aside(tmp_path):
    torch.save({"model": {"a": torch.ones(2)}, "best": np.float64(24.46), "epoch": np.int64(9)}, tmp_path / "old.pth")
    assert torch.equal(read_checkpoint(tmp_path / "old.pth")["a"], torch.ones(2))


def test_a_number_in_a_tensors_place_is_no_weight(tmp_path):
    torch.save({"model": {"a": np.float64(1)}}, tmp_path / "odd.pth")
    with pytest.raises(InputError, match="'a' is Unread"):
        read_checkpoint(tmp_path / "odd.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_command_hidden_in_an_old_config_is_refused_and_not_run(tmp_path, zipped):
    config = YAML().load("a: 1  # a comment\nb: {c: 6e-5}\n")
    config["b"]["d"] = Command(f"touch {tmp_path / 'was_run'}")
    file = tmp_path / "hostile.pth"
    torch.save({"model": {"a": torch.ones(2)}, "config": config}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"nothing of it was run.*(os|posix)\.system"):
        read_checkpoint(file)
    assert not (tmp_path / "was_run").exists()
    torch.load(file, weights_only=False)  # the file is as hostile as it is meant to be
    assert (tmp_path / "was_run").exists()


def test_the_command_told_for_a_refused_file_converts_it(tmp_path):
    file = tmp_path / "with a namespace.pth"
    torch.save({"model": {"a": torch.arange(3.0)}, "config": argparse.Namespace(lr=1)}, file)
    with pytest.raises(InputError, match=r"argparse\.Namespace") as error:
        read_checkpoint(file)
    assert "\n" not in str(error.value)
    command = shlex.split(str(error.value).split("save its tensors alone: ")[1])
    subprocess.run([sys.executable, *command[1:]], check=True, timeout=120)
    assert torch.equal(read_checkpoint(command[-1])["a"], torch.arange(3.0))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x80\x02", pickle.dumps([1, 2])])
def test_a_damaged_file_is_one_line(tmp_path, content):
    (tmp_path / "damaged.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"damaged\.pth") as error:
        read_checkpoint(tmp_path / "damaged.pth")
    assert "\n" not in str(error.value)


def test_a_file_cut_short_is_one_line(tmp_path):
    torch.save({"model": {"a": torch.zeros(5000)}}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:9000])
    with pytest.raises(InputError, match=r"cut\.pth"):
        read_checkpoint(tmp_path / "cut.pth")


def test_a_state_dict_is_read_bare_or_under_model(tmp_path):
    for content in ({"a": torch.ones(2)}, {"model": {"a": torch.ones(2)}, "config": {"x": 1}}):
        torch.save(content, tmp_path / "file.pth")
        assert torch.equal(read_checkpoint(tmp_path / "file.pth")["a"], torch.ones(2))


def test_a_save_that_fails_leaves_the_file_there_was(tmp_path):
    save(tmp_path / "file.pth", {"a": 1})
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        save(tmp_path / "file.pth", {"a": lambda: None})
    assert read_torch_file(tmp_path / "file.pth") == {"a": 1}


def test_overwriting_removes_a_runs_files_and_nothing_else(tmp_path):
    written = ("config.yaml", "log.txt", "result.json", "ranks.npz", "embeddings.npz", "checkpoint_best.pth")
    for name in (*written, "notes.txt"):
        (tmp_path / name).write_text("x")
    output.remove_run(tmp_path, evaluate=False, weights=None)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_overwriting_an_evaluation_keeps_the_checkpoints(tmp_path):
    found = ("result.json", "ranks.npz", "embeddings.npz", "examples.png")
    for name in (*found, "checkpoint_best.pth", "log.txt"):
        (tmp_path / name).write_text("x")
    output.remove_run(tmp_path, evaluate=True, weights=None)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint_best.pth", "log.txt"]


def test_a_published_folder_can_be_evaluated_into(tmp_path):
    for name in ("config.yaml", "log.txt", "checkpoint_best.pth"):
        (tmp_path / name).write_text("x")
    output.check_output(tmp_path, resume=False, overwrite=False, evaluate=True)
    with pytest.raises(InputError, match="--resume or --overwrite"):
        output.check_output(tmp_path, resume=False, overwrite=False, evaluate=False)


@pytest.mark.parametrize("flags", [{"resume": True, "overwrite": True}, {"resume": True, "evaluate": True}])
def test_flags_that_contradict_each_other_are_refused(tmp_path, flags):
    with pytest.raises(InputError, match="give one"):
        output.check_output(tmp_path, **({"resume": False, "overwrite": False, "evaluate": False} | flags))


def test_resuming_a_run_without_its_resume_file_is_refused(tmp_path):
    (tmp_path / "log.txt").write_text("{}")
    with pytest.raises(InputError, match=r"no resume\.pth"):
        output.check_output(tmp_path, resume=True, overwrite=False, evaluate=False)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        output.open_output(tmp_path / "file" / "folder")
