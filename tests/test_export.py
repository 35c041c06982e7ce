"""Export.py: a trained model becomes a folder that `load` and an evaluation read, wherever it lies."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import Export
from export.card import is_untouched
from export.compact import compacted
from export.folder import check_free
from models import load
from tests.exports import exported_to, tiny_run
from utils.checkpoint import read_checkpoint
from utils.errors import InputError
from utils.output import config_in, weights_in
from utils.safe_weights import COMPACT, ROW_SCALE, SAME_AS

ROOT = Path(__file__).parents[1]
SENTENCES = ["A lake, beside a road!", "two white planes"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """With starts that are nowhere: a trained model needs none."""
    nowhere = {"resnet_ckpt": "nowhere/prior.pth", "text_encoder": "nowhere/bert"}
    return tiny_run(tmp_path_factory.mktemp("run"), **nowhere)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The folder of each format."""
    return exported_to(tmp_path_factory.mktemp("exported"), run, "folder", "compact")


@pytest.fixture(scope="module")
def pictures():
    numbers = np.random.default_rng(0)
    return [numbers.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(3)]


def cosine(a, b):
    return (a * b).sum(axis=1)


def test_an_exported_folder_gives_the_very_embeddings(run, exported, pictures):
    model, travelled = load(run), load(exported / "folder")
    np.testing.assert_array_equal(travelled.embed_images(pictures), model.embed_images(pictures))
    np.testing.assert_array_equal(travelled.embed_texts(SENTENCES), model.embed_texts(SENTENCES))


def test_a_compact_folder_gives_nearly_the_same_and_is_under_a_third(run, exported, pictures):
    model, small = load(run), load(exported / "compact")
    assert cosine(small.embed_images(pictures), model.embed_images(pictures)).min() > 0.99
    assert cosine(small.embed_texts(SENTENCES), model.embed_texts(SENTENCES)).min() > 0.999
    sizes = [(exported / kind / "model.safetensors").stat().st_size for kind in ("compact", "folder")]
    assert sizes[0] < sizes[1] / 3


@pytest.mark.parametrize("kind", ["folder", "compact"])
def test_a_folder_is_whole_wherever_it_is_moved(exported, tmp_path, monkeypatch, pictures, capfd, kind):
    shutil.copytree(exported / kind, tmp_path / "moved [1]: here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model = load("../moved [1]: here")
    assert model.score(pictures, SENTENCES).shape == (3, 2)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_the_mean_of_several_trainings_is_exported(run, tmp_path):
    """Of the weights and not of the embeddings; a counter is the first's."""
    others = []
    for number in (1, 2):
        state = {n: t.clone() for n, t in read_checkpoint(run / "checkpoint_best.pth").items()}
        state = {n: t + 0.1 * number if t.is_floating_point() else t + number for n, t in state.items()}
        shutil.copytree(run, tmp_path / f"other_{number}")
        torch.save({"model": state}, tmp_path / f"other_{number}" / "checkpoint_best.pth")
        others += ["--average_with", str(tmp_path / f"other_{number}")]
    Export.main(["--checkpoint", str(run), *others, "--output_dir", str(tmp_path / "mean")])
    mean, first = load_file(tmp_path / "mean" / "model.safetensors"), read_checkpoint(run / "checkpoint_best.pth")
    for name, tensor in mean.items():
        expected = first[name] + 0.1 if tensor.is_floating_point() else first[name]
        torch.testing.assert_close(tensor, expected, msg=name)


def test_the_mean_of_equal_weights_is_these_very_weights(run, exported, tmp_path):
    same = ["--average_with", str(exported / "folder")] * 2
    Export.main(["--checkpoint", str(run), *same, "--output_dir", str(tmp_path / "mean")])
    mean, alone = (load_file(folder / "model.safetensors") for folder in (tmp_path / "mean", exported / "folder"))
    assert all(torch.equal(tensor, alone[name]) for name, tensor in mean.items())


def test_no_mean_is_taken_with_weights_of_another_model(run, tmp_path):
    other = tiny_run(tmp_path / "other", embed_dim=16)
    with pytest.raises(InputError, match=r"--average_with .*other: the weights do not fit .* of another shape"):
        Export.main(["--checkpoint", str(run), "--average_with", str(other), "--output_dir", str(tmp_path / "mean")])
    assert not (tmp_path / "mean").exists()


def test_the_folder_is_in_hugging_faces_style(exported):
    values = json.loads((exported / "folder/config.json").read_text())
    assert (values["model_type"], values["architectures"], values["tokenizer"]) == ("pir", ["PIR"], ".")
    assert {"model.safetensors", "tokenizer.json", "README.md"} <= {
        file.name for file in (exported / "folder").iterdir()
    }
    state = load_file(exported / "folder/model.safetensors")
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in state.values())


def test_its_weights_and_config_are_found_by_its_name(exported, run):
    folder = exported / "compact"
    assert weights_in(str(folder)) == str(folder / "model.safetensors")
    assert config_in(str(folder)) == str(folder / "config.json")
    assert weights_in(str(run)).endswith("checkpoint_best.pth") and config_in(str(run)).endswith("config.yaml")


def test_an_export_can_be_exported_again(exported, tmp_path, pictures):
    Export.main(["--checkpoint", str(exported / "compact"), "--output_dir", str(tmp_path / "full")])
    a, b = load(exported / "compact"), load(tmp_path / "full")
    np.testing.assert_array_equal(a.embed_images(pictures), b.embed_images(pictures))


def test_an_override_is_in_the_exported_config(run, tmp_path):
    given = ["--checkpoint", str(run), "--output_dir", str(tmp_path / "new"), "--override", "test_file=data/other.json"]
    Export.main(given)
    assert json.loads((tmp_path / "new/config.json").read_text())["test_file"] == "data/other.json"


@pytest.mark.timeout(600)
def test_an_evaluation_takes_an_exported_folder(exported, tmp_path, pictures):
    records = []
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        records.append({"image": f"{number}.png", "caption": ["a lake", f"{number} planes"]})
    (tmp_path / "test.json").write_text(json.dumps(records))
    command = [sys.executable, "Retrieval.py", "--evaluate", "--checkpoint", str(exported / "compact")]
    command += ["--output_dir", str(tmp_path / "out"), "--device", "cpu", "--override", f"image_root={tmp_path}"]
    command += ["--override", f"test_file={tmp_path / 'test.json'}", "--override", "num_workers=0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/result.json").read_text())["captions"] == 6


# ---- what is in the way, and what fails ----


def test_nothing_is_overwritten_unless_it_is_said(run, exported, tmp_path):
    shutil.copytree(exported / "compact", tmp_path / "old")
    given = ["--checkpoint", str(run), "--output_dir", str(tmp_path / "old")]
    with pytest.raises(InputError, match=r"is not empty; give --overwrite"):
        Export.main(given)
    Export.main([*given, "--overwrite"])
    sizes = [(place / "model.safetensors").stat().st_size for place in (tmp_path / "old", exported / "folder")]
    assert sizes[0] == sizes[1]
    assert [file.name for file in tmp_path.iterdir()] == ["old"]


def test_files_of_another_kind_are_never_removed(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"holds thesis.txt, which this would remove"):
        Export.main(["--checkpoint", str(run), "--output_dir", str(tmp_path / "mine"), "--overwrite"])
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "config", [None, '{"model_type": "bert"}', "{", "[1]"], ids=["none", "another model's", "damaged", "a list"]
)
def test_files_that_no_export_wrote_are_never_replaced(tmp_path, config):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("my own")
    (mine / "preprocessing.json").write_text('[{"somebody": "else\'s"}]')
    if config:
        (mine / "config.json").write_text(config)
    before = {file.name: file.read_text() for file in mine.iterdir()}
    with pytest.raises(InputError, match="no sign of an earlier export"):  # before the model, which is nowhere, is read
        Export.main(["--checkpoint", str(tmp_path / "nowhere"), "--output_dir", str(mine), "--overwrite"])
    assert {file.name: file.read_text() for file in mine.iterdir()} == before


def test_a_folder_of_a_files_name_is_not_removed(exported, tmp_path):
    shutil.copytree(exported / "compact", tmp_path / "old")
    (tmp_path / "old/vocab.txt").mkdir()
    with pytest.raises(InputError, match=r"holds vocab.txt, which this would remove"):
        check_free(tmp_path / "old", overwrite=True)


def test_a_card_that_was_filled_in_is_kept_and_an_untouched_one_is_not(run, exported, tmp_path, capsys):
    shutil.copytree(exported / "compact", tmp_path / "old")
    given = ["--checkpoint", str(run), "--output_dir", str(tmp_path / "old"), "--overwrite"]
    Export.main([*given, "--override", "test_file=data/other.json"])
    card = tmp_path / "old/README.md"
    assert "data/other.json" in card.read_text() and "kept" not in capsys.readouterr().out
    card.write_text(card.read_text().replace("TO BE FILLED IN: a name", "My model"))
    filled = card.read_bytes()
    Export.main(given)
    assert card.read_bytes() == filled and "README.md was filled in, so it is kept" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"\xff", b"x" * 2**17, b""], ids=["no text", "large", "empty"])
def test_what_is_no_untouched_card_is_one_that_was_filled_in(tmp_path, content):
    (tmp_path / "README.md").write_bytes(content)
    assert not is_untouched(tmp_path / "README.md")


def test_a_folder_that_is_a_link_is_written_where_it_leads(run, exported, tmp_path):
    shutil.copytree(exported / "compact", tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    Export.main(["--checkpoint", str(run), "--output_dir", str(tmp_path / "link"), "--overwrite"])
    assert (tmp_path / "link").is_symlink() and sorted(file.name for file in tmp_path.iterdir()) == ["link", "real"]
    assert "torch.int8" not in {str(tensor.dtype) for tensor in load_file(tmp_path / "real/model.safetensors").values()}


def test_sizes_are_told_in_units_that_say_something(run, tmp_path, capsys):
    Export.main(["--checkpoint", str(run), "--output_dir", str(tmp_path / "new")])
    printed = capsys.readouterr().out
    assert re.search(r"README.md 0.[89] KB", printed) and "model.safetensors" in printed and " 0.0 " not in printed


def test_an_export_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr("export.folder.write_card", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match=r"new cannot be written \(No space left\)"):
        Export.main(["--checkpoint", str(run), "--output_dir", str(tmp_path / "new")])
    assert list(tmp_path.iterdir()) == []


def test_help_comes_at_once():
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-X", "importtime", "Export.py", "--help"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0 and b"compact" in done.stdout and time.monotonic() - started < 60
    assert b" torch\n" not in done.stderr  # which takes seconds


def test_a_mistake_is_one_line(tmp_path):
    command = [sys.executable, "Export.py", "--checkpoint", str(tmp_path), "--output_dir", "x", "--format", "zip"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


# ---- compact weights ----


def test_long_rows_become_int8_with_a_scale_each_and_vectors_stay():
    torch.manual_seed(0)
    state = {"long.weight": torch.randn(8, 100), "conv.weight": torch.randn(4, 1, 3, 3), "norm.bias": torch.randn(9)}
    state |= {
        "again.weight": state["long.weight"].clone(),
        "zeros.weight": torch.zeros(2, 64),
        "steps": torch.tensor(3),
    }
    stored, about = compacted(state)
    assert {name: str(tensor.dtype) for name, tensor in stored.items()} == {
        "long.weight": "torch.int8",
        "long.weight" + ROW_SCALE: "torch.float32",
        "conv.weight": "torch.float16",
        "norm.bias": "torch.float32",
        "zeros.weight": "torch.int8",
        "zeros.weight" + ROW_SCALE: "torch.float32",
        "steps": "torch.int64",
    }
    assert json.loads(about[SAME_AS]) == {"again.weight": "long.weight"}


def test_compact_weights_come_back_under_their_names_within_half_a_step(tmp_path):
    torch.manual_seed(0)
    state = {"a.weight": torch.randn(8, 100), "b.weight": torch.full((2, 4), 1e6), "c": torch.tensor(3)}
    state["d.weight"] = state["a.weight"].clone()
    stored, about = compacted(state)
    save_file(stored, tmp_path / "small.safetensors", about)
    back = read_checkpoint(tmp_path / "small.safetensors")
    assert back.keys() == state.keys() and torch.equal(back["b.weight"], state["b.weight"])  # too large for half
    assert torch.equal(back["a.weight"], back["d.weight"]) and back["a.weight"].dtype == torch.float32
    step = state["a.weight"].abs().amax(dim=1, keepdim=True) / 127
    assert ((back["a.weight"] - state["a.weight"]).abs() <= step * 0.5001).all()


@pytest.mark.parametrize(
    ("tensors", "about", "said"),
    [
        ({"a": torch.ones(2, 3, dtype=torch.int8)}, {}, "'a' has not one scale a row"),
        ({"a": torch.ones(2, 3, dtype=torch.int8), "a.row_scale": torch.ones(3)}, {}, "'a' has not one scale a row"),
        ({"a": torch.ones(2, dtype=torch.int8), "a.row_scale": torch.ones(2)}, {}, "'a' has not one scale a row"),
        ({"a": torch.ones(2)}, {SAME_AS: '{"b": "gone"}'}, "names no tensors of it"),
        ({"a": torch.ones(2)}, {SAME_AS: "[1]"}, "names no tensors of it"),
        ({"a": torch.ones(2)}, {SAME_AS: '{"b": [1]}'}, "names no tensors of it"),
        ({"a": torch.ones(2)}, {SAME_AS: "[" * 100_000}, "names no tensors of it"),
        ({"a": torch.ones(2)}, {COMPACT: "2"}, "compact by rule '2', this program knows 1"),
    ],
)
def test_damaged_compact_weights_are_one_line(tmp_path, tensors, about, said):
    save_file(tensors, tmp_path / "odd.safetensors", {COMPACT: "1"} | about)
    with pytest.raises(InputError, match=said) as raised:
        read_checkpoint(tmp_path / "odd.safetensors")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: values | {"pir_format": 2}, "has format 2, this program reads 1"),
        (lambda values: values | {"model_type": "bert"}, r"is of no PIR model \(model_type 'bert'\)"),
        (lambda values: [values], r"is of no PIR model"),
        (lambda values: values | {"strange": 1}, "strange"),
        (lambda values: values | {"embed_dim": 24}, "do not fit the config's model"),
    ],
)
def test_a_config_json_that_does_not_fit_is_one_line(exported, tmp_path, change, said):
    shutil.copytree(exported / "compact", tmp_path / "odd")
    values = json.loads((tmp_path / "odd/config.json").read_text())
    (tmp_path / "odd/config.json").write_text(json.dumps(change(values)))
    with pytest.raises(InputError, match=said) as raised:
        load(tmp_path / "odd")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_folder_that_is_not_whole_is_one_line(exported, tmp_path, missing):
    shutil.copytree(exported / "compact", tmp_path / "part")
    (tmp_path / "part" / missing).unlink()
    with pytest.raises(InputError) as raised:
        load(tmp_path / "part")
    assert "\n" not in str(raised.value)


def test_torch_hub_gives_the_model(exported, pictures):
    model = torch.hub.load(str(ROOT), "pir", checkpoint=str(exported / "compact"), device="cpu", source="local")
    assert model.score(pictures[:1], SENTENCES).shape == (1, 2)
