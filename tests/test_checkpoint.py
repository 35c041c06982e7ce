"""Files of torch.save and the output folder."""

import pickle

import pytest
import torch

from utils import output
from utils.checkpoint import read_checkpoint, read_torch_file, save
from utils.errors import InputError


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("code of a weights file was run",))


def test_code_in_a_weights_file_is_refused_and_not_run(tmp_path):
    torch.save({"model": {}, "config": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(InputError, match="nothing of it was run"):
        read_torch_file(tmp_path / "harmful.pth")


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
