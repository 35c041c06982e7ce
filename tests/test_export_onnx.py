"""Both encoders as ONNX graphs: the same embeddings without torch."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import Export
from dataset.tokenizer import padded, tokenized
from export.onnx_encoders import write_onnx
from models import load
from tests.clip_pairs import clip_config
from tests.exports import exported_to, tiny_run
from utils.errors import InputError

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs/examples/onnx_search.py"
COUNT = 100


@pytest.fixture(scope="module", params=[False, True], ids=["once", "eight orientations"])
def run(request, tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("run"), average_orientations=request.param)


@pytest.fixture(scope="module")
def onnx(run, tmp_path_factory):
    """The folders `onnx` and `onnx_int8`."""
    return exported_to(tmp_path_factory.mktemp("onnx"), run, "onnx", "onnx_int8")


def embedded(folder, side, **inputs):
    return onnxruntime.InferenceSession(folder / f"{side}_encoder.onnx").run(None, inputs)[0]


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (COUNT, 112, 112, 3), dtype=np.uint8)


def captions_of(model):
    """A hundred of one to twenty words that the vocabulary knows, and one that it does not."""
    words = [word for word in model.tokenizer.get_vocab() if word.isalpha()]
    numbers = np.random.default_rng(0)
    return ["lake zzzqqq"] + [" ".join(numbers.choice(words, 1 + i % 20)) for i in range(COUNT - 1)]


def test_a_hundred_pictures_agree_with_torch_to_1e4(run, onnx, pictures):
    if load(run, device="cpu").config.average_orientations:
        pictures = pictures[:12]  # eight times as slow
    by_onnx = embedded(onnx / "onnx", "image", images=pictures.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(by_onnx, load(run, device="cpu").embed_images(list(pictures)), atol=1e-4)


def test_a_hundred_captions_of_any_length_agree_with_torch_to_1e4(run, onnx):
    model = load(run, device="cpu")
    captions = captions_of(model)
    ids, mask = padded(tokenized(captions, model.tokenizer, model.config.max_tokens), model.tokenizer)
    by_onnx = embedded(onnx / "onnx", "text", ids=ids.numpy(), attention_mask=mask.numpy())
    np.testing.assert_allclose(by_onnx, model.embed_texts(captions), atol=1e-4)
    alone = embedded(
        onnx / "onnx", "text", ids=ids[:1, : mask[0].sum()].numpy(), attention_mask=mask[:1, mask[0] > 0].numpy()
    )
    np.testing.assert_allclose(alone, by_onnx[:1], atol=1e-5)


def test_int8_is_near_and_smaller(run, onnx, pictures):
    pictures = pictures[:8]
    whole, small = (
        embedded(onnx / kind, "image", images=pictures.transpose(0, 3, 1, 2)) for kind in ("onnx", "onnx_int8")
    )
    assert 0.95 < (whole * small).sum(axis=1).min() < 0.9999999
    sizes = {kind: (onnx / kind / "text_encoder.onnx").stat().st_size for kind in ("onnx", "onnx_int8")}
    assert sizes["onnx_int8"] < 0.8 * sizes["onnx"]


def test_the_settings_say_what_comes_before_the_graphs(run, onnx):
    settings = json.loads((onnx / "onnx/preprocessing.json").read_text())
    averaged = load(run, device="cpu").config.average_orientations
    assert settings["image"]["size"] == [112, 112] and settings["image"]["orientations"] == (8 if averaged else 1)
    assert settings["text"]["max_tokens"] == 24 and settings["text"]["to_space"] == "-/"


WITHOUT_TORCH = """
import sys
for name in ("torch", "torchvision", "transformers", "timm", "models", "dataset", "utils", "export"):
    sys.modules[name] = None  # importing it raises
sys.argv = sys.argv[1:]
exec(compile(open(sys.argv[0], encoding="utf-8").read(), sys.argv[0], "exec"))
"""


def test_forty_lines_search_a_folder_without_torch(run, onnx, tmp_path):
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    for number, pixels in enumerate(np.random.default_rng(1).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    query = "A Lake, beside-a road!"
    command = [sys.executable, "-c", WITHOUT_TORCH, str(EXAMPLE), str(onnx / "onnx"), str(tmp_path), query]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {Path(line.split()[1]).name: float(line.split()[0]) for line in done.stdout.splitlines()}
    files = [tmp_path / f"{number}.png" for number in range(3)]
    wanted = load(run, device="cpu").score(files, [query])[:, 0]
    np.testing.assert_allclose([found[file.name] for file in files], wanted, atol=2e-4)
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.parametrize("query", ["", " ...!"])
def test_a_query_without_a_word_is_one_line(onnx, tmp_path, query):
    command = [sys.executable, str(EXAMPLE), str(onnx / "onnx"), str(tmp_path), query]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: the query has no word\n")


def test_a_model_that_the_exporter_does_not_know_is_one_line_and_leaves_nothing(run, tmp_path, monkeypatch, capfd):
    def failing(*_, **__):
        print("a whole graph")
        raise torch.onnx.errors.OnnxExporterError("no such operator\nin a second line")

    monkeypatch.setattr(torch.onnx, "export", failing)
    with pytest.raises(
        InputError, match=r"image_encoder.onnx: this model cannot be exported.*no such operator"
    ) as raised:
        Export.main(["--checkpoint", str(run), "--output_dir", str(tmp_path / "new"), "--format", "onnx"])
    assert "\n" not in str(raised.value) and list(tmp_path.iterdir()) == [] and "graph" not in capfd.readouterr().out


def test_an_export_of_one_format_replaces_one_of_another_and_its_card_says_how_it_is_used(run, onnx, tmp_path):
    place, given = tmp_path / "old", ["--checkpoint", str(run), "--output_dir", str(tmp_path / "old"), "--overwrite"]
    shutil.copytree(onnx / "onnx", place)
    card = (place / "README.md").read_text()
    assert "onnx_search.py" in card and "preprocessing.json" in card and "load(" not in card
    Export.main([*given, "--format", "compact"])
    assert (place / "model.safetensors").exists() and not (place / "preprocessing.json").exists()
    assert 'load("THIS/FOLDER")' in (place / "README.md").read_text()
    Export.main([*given, "--format", "onnx"])
    assert {file.name for file in place.iterdir()} == {file.name for file in (onnx / "onnx").iterdir()}
    assert (place / "README.md").read_text() == card


def test_quantising_says_nothing(run, tmp_path):
    command = [sys.executable, "Export.py", "--checkpoint", str(run), "--output_dir", str(tmp_path / "new")]
    done = subprocess.run([*command, "--format", "onnx_int8"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.count("\n") == 1


def test_a_clip_pair_is_refused_in_one_line(tmp_path):
    model = SimpleNamespace(config=clip_config(tmp_path, "vit"))
    with pytest.raises(InputError, match="no ONNX form") as raised:
        write_onnx(model, tmp_path, int8=False)
    assert "\n" not in str(raised.value)
