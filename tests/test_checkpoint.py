"""Files of torch.save and the output folder."""

import argparse
import json
import os
import pickle
import shlex
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarfloat import ScalarFloat
from safetensors.torch import save_file

from models.released import load_released, released_state_dict
from tests.tiny import tiny_model
from utils import output
from utils.checkpoint import read_checkpoint, read_torch_file, save
from utils.earlier import remove_run
from utils.errors import InputError
from utils.typed import read_yaml, write_yaml


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
    remove_run(tmp_path, evaluate=False, reads=[])
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_overwriting_keeps_the_checkpoints_that_no_run_there_wrote(tmp_path):
    write_yaml({"schedular": {"epochs": 3}}, tmp_path / "config.yaml")
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard/events.out.tfevents.1.host").write_text("x")
    (tmp_path / "tensorboard/events.mine").write_text("x")
    for name in ("checkpoint_2.pth", "checkpoint_best.pth", "checkpoint_mine.pth", "checkpoint_7.pth"):
        (tmp_path / name).write_text("x")
    remove_run(tmp_path, evaluate=False, reads=[])
    left = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file())
    assert left == ["checkpoint_7.pth", "checkpoint_mine.pth", "tensorboard/events.mine"]


@pytest.mark.parametrize("name", ["prior.pth", "checkpoint_best.pth", "result.json"])
def test_overwriting_never_removes_what_the_run_is_about_to_read(tmp_path, name):
    for file in (name, "log.txt"):
        (tmp_path / file).write_text("x")
    with pytest.raises(InputError, match=f"would remove .*{name}, which this run starts from"):
        remove_run(tmp_path, evaluate=False, reads=[None, str(tmp_path / "." / name)])
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([name, "log.txt"])


@pytest.mark.parametrize(("name", "evaluate"), [("log.txt", False), ("resume.pth", False), ("result.json", True)])
def test_a_folder_named_like_a_runs_file_is_one_line_and_nothing_is_removed(tmp_path, name, evaluate):
    (tmp_path / name).mkdir()
    (tmp_path / "ranks.npz").write_text("x")
    for act in (
        lambda: output.check_output(tmp_path, resume=False, overwrite=True, evaluate=evaluate),
        lambda: remove_run(tmp_path, evaluate=evaluate, reads=[]),
    ):
        with pytest.raises(InputError, match=f"{name} is a folder"):
            act()
    assert (tmp_path / name).is_dir() and (tmp_path / "ranks.npz").exists()


def test_overwriting_an_evaluation_keeps_the_checkpoints(tmp_path):
    found = ("result.json", "ranks.npz", "embeddings.npz", "examples.png")
    for name in (*found, "checkpoint_best.pth", "log.txt"):
        (tmp_path / name).write_text("x")
    remove_run(tmp_path, evaluate=True, reads=[])
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
    (tmp_path / "log.txt").write_text("{}\n{}\n")
    with pytest.raises(InputError, match=r"no resume\.pth"):
        output.check_output(tmp_path, resume=True, overwrite=False, evaluate=False)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        output.open_output(tmp_path / "file" / "folder")


# ---- weights of another kind ----


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.to(torch.int8), "1 of another kind, first 'head_img.bias' int8 for float32"),
        (lambda t: t.to(torch.complex64), "1 of another kind, first 'head_img.bias' complex64 for float32"),
        (lambda t: t * float("nan"), "1 not finite, first 'head_img.bias'"),
    ],
)
def test_weights_of_another_kind_are_refused_and_change_nothing(tiny_config, change, said):
    model = tiny_model(tiny_config())
    state, before = released_state_dict(model), {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(InputError) as raised:
        load_released(model, state | {"head_img.bias": change(state["head_img.bias"])})
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_weights_of_less_precision_are_taken(tiny_config):
    model = tiny_model(tiny_config())
    halved = {n: t.half() if t.is_floating_point() else t for n, t in released_state_dict(model).items()}
    load_released(model, halved)
    assert model.vision_proj.weight.dtype == torch.float32


def test_compressed_weights_are_refused_before_they_are_unpacked(tmp_path):
    torch.save({"model": {"a": torch.zeros(500_000)}}, tmp_path / "plain.pth")
    packed = zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, packed:
        for member in plain.namelist():
            packed.writestr(member, plain.read(member))
    with pytest.raises(InputError, match=r"small\.pth are compressed"):
        read_checkpoint(tmp_path / "small.pth")


# ---- safetensors ----


def test_foreign_weights_of_safetensors_are_read_as_they_are(tmp_path):
    state = {"a": torch.arange(3.0), "module_b": torch.ones(2, dtype=torch.float16)}
    save_file(state, tmp_path / "plain.safetensors", {"format": "pt", "whose": "another program's"})
    read = read_checkpoint(tmp_path / "plain.safetensors")
    assert read.keys() == state.keys() and all(torch.equal(read[name], state[name]) for name in state)
    assert read["module_b"].dtype == torch.float16


def header(tensors, data=b""):
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>",
        (2**60).to_bytes(8, "little") + b"{}",
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(4)),  # cut short
        header({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),  # of another size
        header({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, bytes(8)),
        header({"a": {"dtype": "STRANGE", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}, bytes(8)),
        header([1]),
        header({}),
    ],
)
def test_damaged_weights_of_safetensors_are_one_line(tmp_path, content):
    (tmp_path / "odd.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"odd\.safetensors (is damaged|holds no state dict)") as error:
        read_checkpoint(tmp_path / "odd.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["missing.safetensors", "folder.safetensors"])
def test_weights_of_safetensors_that_are_no_file_are_one_line(tmp_path, name):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(InputError, match=f"{name} cannot be read|cannot read .*{name}"):
        read_checkpoint(tmp_path / name)


def test_weights_of_safetensors_that_are_not_finite_fill_no_model(tmp_path, tiny_config):
    model = tiny_model(tiny_config())
    state = {name: tensor.clone().contiguous() for name, tensor in released_state_dict(model).items()}
    state["vision_proj.weight"][0, 0] = float("nan")
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(InputError, match=r"1 not finite, first 'vision_proj\.weight'"):
        load_released(model, read_checkpoint(tmp_path / "odd.safetensors"))
