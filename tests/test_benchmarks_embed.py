"""The benchmark of embeddings: both ways give the same, of captions as RSICD has them, and its figures are written."""

import json
import statistics

import numpy as np
import pytest
import torch

from benchmarks import embed
from tests.tiny import tiny_config
from utils.errors import InputError
from utils.typed import write_yaml

SMALL = {"prior_backbone": "mobilenetv3_small_050", "text_encoder": None, "resnet_ckpt": None}
BATCHES = {"batch_size_test": 2, "batch_size_test_text": 4}


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "small.yaml"
    write_yaml(tiny_config(tmp_path, **SMALL, **BATCHES).to_dict(), file)
    return file


TIMM = ["vision_config={backbone: mobilenetv3_small_050}", "prior_normalisation=own", "filter_size=8"]
TIMM += ["text_summary=mean", "use_lca=False"]


@pytest.mark.parametrize("overrides", [[], TIMM], ids=["swin", "with stages in common"])
def test_the_plain_way_and_ours_give_the_same_embeddings(config, overrides):
    captions = embed.drawn_captions(30)
    given = [part for override in overrides for part in ("--override", override)]
    embedder, plain = embed.made(embed.parse(["--config", str(config), *given]), captions)
    assert bool(embedder.model.common_stages) == bool(overrides)
    size = embedder.config.image_res
    pictures = [*np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)]
    ours, theirs = embedder.image_embeddings(pictures), embed.plain_images(plain, embedder, pictures)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    ours, theirs = embedder.text_embeddings(captions), embed.plain_texts(plain, embedder, captions)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert len(ours.unique(dim=0)) > 5


def test_the_figures_are_printed_written_and_drawn(config, tmp_path, capsys):
    output = tmp_path / "embed.json"
    sizes = ["--images", "3", "--texts", "20", "--repeats", "1"]
    embed.main(["--config", str(config), *sizes, "--output", str(output), "--profile"])
    figures, printed = json.loads(output.read_text()), capsys.readouterr().out
    assert figures["images_ratio"] > 0 and figures["texts_ratio"] > 0 and figures["captions"] == 20
    assert f"texts_ratio                  {figures['texts_ratio']}" in printed and "aten::" in printed
    assert output.with_suffix(".png").exists() and (tmp_path / "embed_pictures.trace.json").exists()


def test_drawn_captions_are_as_long_and_as_often_repeated_as_rsicds():
    captions = embed.drawn_captions(5000)
    lengths = [len(caption.split()) for caption in captions]
    assert len(captions) == 5000 and abs(len(set(captions)) - 1872) < 50
    assert abs(statistics.mean(lengths) - 10.43) < 0.3 and abs(statistics.pstdev(lengths) - 3.06) < 0.3
    assert min(lengths) >= 3 and 20 < max(lengths) <= 30


def test_captions_of_ones_own_are_read_in_order(tmp_path):
    file = tmp_path / "test.json"
    file.write_text(json.dumps([{"image": "a.jpg", "caption": ["A Lake.", "A road."]}]))
    assert embed.read_captions(file) == ["a lake", "a road"]
    file.write_text(json.dumps({"images": []}))
    with pytest.raises(InputError, match="expected a list of records"):
        embed.read_captions(file)


@pytest.mark.parametrize(
    ("given", "said"), [(["--texts", "0"], "give 1 or more"), (["--override", "no=1"], "unknown key")]
)
def test_mistakes_are_one_line(config, given, said):
    with pytest.raises(InputError, match=said):
        embed.main(["--config", str(config), *given])
