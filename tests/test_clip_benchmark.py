"""Retrieval figures beside those of clip_benchmark: the same where both protocols agree, and where they do not."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

import Prepare
from dataset.annotations import read_evaluation
from dataset.pictures import load_picture
from dataset.transforms import evaluation_transform
from models.encoders import normalise
from tests.small_releases import entry, picture
from tests.tiny import uniform, weight
from utils.metrics import recall, retrieval_ranks

# Not the package's other metrics: those of captioning need programs that are not installed.
theirs = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval", reason="clip_benchmark is not installed")

ROOT = Path(__file__).parents[1]
CLIP = "configs/config_clip_demo.json"
SIDES = {"txt": "text_retrieval_recall@", "img": "image_retrieval_recall@"}  # image to text, text to image
DEPTHS = (1, 5, 10)


class GivenEmbeddings:
    """A model whose pictures are their embeddings, and whose texts are numbers of theirs."""

    def __init__(self, text_embeds):
        self.text_embeds = text_embeds

    def encode_image(self, images):
        return images

    def encode_text(self, ids):
        return self.text_embeds[ids]


def by_clip_benchmark(image_embeds, text_embeds, own):
    """Its evaluation of these embeddings, in batches of seven pictures, with our figures' names."""
    texts = [[str(t) for t, picture in enumerate(own) if picture == i] for i in range(len(image_embeds))]
    batches = [(image_embeds[i : i + 7], texts[i : i + 7]) for i in range(0, len(texts), 7)]
    return figures_of(GivenEmbeddings(text_embeds), batches, lambda given: torch.tensor([int(text) for text in given]))


def figures_of(model, batches, tokenizer):
    found = theirs.evaluate(model, batches, tokenizer, "cpu", amp=False, recall_k_list=list(DEPTHS))
    return {f"{side}_r{k}": round(100 * found[f"{name}{k}"], 2) for side, name in SIDES.items() for k in DEPTHS}


def ours(image_embeds, text_embeds, own):
    return recall(*retrieval_ranks(image_embeds, text_embeds, own))


def embeddings(captions_of_picture, width=32):
    """Unit embeddings of pictures, and of captions near theirs; each caption's picture."""
    own = [i for i, count in enumerate(captions_of_picture) for _ in range(count)]
    images = F.normalize(uniform("images", (len(captions_of_picture), width)), dim=-1)
    texts = F.normalize(images[own] + 3 * F.normalize(uniform("texts", (len(own), width)), dim=-1), dim=-1)
    return images, texts, own


@pytest.mark.parametrize(
    "captions_of_picture", [[5] * 80, [1 + i % 7 for i in range(80)]], ids=["five", "one to seven"]
)
def test_recalls_are_clip_benchmarks_on_the_same_embeddings(captions_of_picture):
    given = embeddings(captions_of_picture)
    found, wanted = ours(*given), by_clip_benchmark(*given)
    assert {name: found[name] for name in wanted} == wanted
    assert 5 < wanted["img_r1"] < wanted["img_r5"] < wanted["img_r10"] < 100
    assert 5 < wanted["txt_r1"] < wanted["txt_r5"] < wanted["txt_r10"] < 100


def test_the_mean_of_the_six_is_ours_alone():
    found = ours(*embeddings([5] * 80))
    mean = sum(value for name, value in found.items() if name != "r_mean") / 6
    assert found["r_mean"] == pytest.approx(mean, abs=0.01)
    assert not [name for name in by_clip_benchmark(*embeddings([5] * 80)) if "mean" in name]


def test_a_picture_is_found_by_any_caption_which_its_function_of_that_name_does_not_say():
    """`recall_at_k` there is the share of a picture's captions that is found; its evaluation counts those above 0."""
    images, texts, own = embeddings([5] * 80)
    positive = torch.tensor(own)[None] == torch.arange(80)[:, None]
    share = theirs.recall_at_k(images @ texts.T, positive, k=1)
    assert 100 * float((share > 0).float().mean()) == pytest.approx(ours(images, texts, own)["txt_r1"], abs=0.01)
    assert share.max() == pytest.approx(0.2)  # one of five, at best


def test_of_equal_similarities_ours_takes_the_first_and_theirs_any():
    """RSICD has sentences that several pictures have word for word: each is at the same place for all of them."""
    images, texts, own = embeddings([2] * 40)
    texts[1::2] = texts[1]  # everyone's second caption is one sentence
    similarities = images @ texts.T
    found, wanted = ours(images, texts, own), by_clip_benchmark(images, texts, own)
    place = torch.tensor([[similarities[i].tolist().index(float(similarities[i].max()))] for i in range(40)])
    assert found["txt_r1"] == round(100 * float((place // 2 == torch.arange(40)[:, None]).double().mean()), 2)
    # Of the sentence itself every picture has the same similarities, so nothing is tied there and both agree.
    assert [found[f"img_r{k}"] for k in DEPTHS] == [wanted[f"img_r{k}"] for k in DEPTHS]
    assert [found[f"txt_r{k}"] for k in DEPTHS] != [wanted[f"txt_r{k}"] for k in DEPTHS]


def test_where_all_is_equal_ours_is_chance_by_number():
    images, texts = F.normalize(torch.ones(40, 4), dim=-1), F.normalize(torch.ones(200, 4), dim=-1)
    own = [i for i in range(40) for _ in range(5)]
    assert ours(images, texts, own) == {
        **{"txt_r1": 2.5, "txt_r5": 2.5, "txt_r10": 5.0},
        **{"img_r1": 2.5, "img_r5": 12.5, "img_r10": 25.0},
        "r_mean": 8.33,
    }
    assert by_clip_benchmark(images, texts, own)["txt_r5"] != 2.5


# ---- the whole way: Karpathy's JSON, a foreign CLIP file, the command line ----


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A Karpathy JSON prepared, and a CLIP file of open_clip's own names evaluated on its test split by the script."""
    folder = tmp_path_factory.mktemp("karpathy")
    (folder / "release/images").mkdir(parents=True)
    scenes = ("Lake", "road", "plane", "field", "house", "beach")
    entries = [
        entry(
            f"{number}.png", split, [f"A {scenes[number % 6]}, beside a {scenes[k]}. It's {number}!" for k in range(5)]
        )
        for number, split in enumerate(["train"] * 3 + ["val"] * 3 + ["test"] * 24)
    ]
    for one in entries:
        picture(one["filename"], (112, 112)).save(folder / "release/images" / one["filename"])
    (folder / "release/dataset.json").write_text(json.dumps({"images": entries, "dataset": "mine"}))
    Prepare.main(["--dataset", "karpathy", "--release", str(folder / "release"), "--output_dir", str(folder / "out")])
    state = open_clip.CLIP(**json.loads((ROOT / CLIP).read_text())).state_dict()
    torch.save({name: weight(name, tensor.shape) for name, tensor in state.items()}, folder / "foreign.pt")
    command = [sys.executable, "Retrieval.py", "--evaluate", "--checkpoint", str(folder / "foreign.pt")]
    command += ["--config", "configs/Retrieval_rsicd_clip.yaml", "--device", "cpu", "--output_dir", str(folder / "run")]
    values = {
        "clip_model": CLIP,
        "vision_config": "{}",
        "image_root": folder / "release",
        "test_file": folder / "out/karpathy_test.json",
    }
    command += [part for key, value in values.items() for part in ("--override", f"{key}={value}")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "run/result.json").read_text())


def of_open_clip(folder, texts_of_picture):
    """clip_benchmark's figures of open_clip's own model of that file."""
    sizes = json.loads((ROOT / CLIP).read_text())
    model = open_clip.CLIP(**sizes).eval()
    model.load_state_dict(torch.load(folder / "foreign.pt", weights_only=True))
    transform = evaluation_transform(112)
    files = [folder / f"release/images/{number}.png" for number in range(6, 30)]
    images = normalise(torch.stack([transform(load_picture(file)) for file in files]))
    batches = [(images[i : i + 10], texts_of_picture[i : i + 10]) for i in range(0, 24, 10)]
    return figures_of(model, batches, open_clip.SimpleTokenizer(context_length=sizes["text_cfg"]["context_length"]))


def test_a_foreign_clip_file_gets_clip_benchmarks_figures_from_karpathys_json(measured):
    folder, result = measured
    test = read_evaluation(folder / "out/karpathy_test.json", folder / "release")
    assert test.captions[0] == "a lake beside a lake its 6" and len(test.images) == 24
    wanted = of_open_clip(folder, [list(test.captions[i : i + 5]) for i in range(0, 120, 5)])
    assert {name: result[name] for name in wanted} == wanted
    assert 0 < wanted["txt_r10"] < 100


def test_captions_as_they_are_written_are_other_captions_to_a_clip_model(measured):
    """Ours are cleaned; that protocol's are not. On the same weights the figures are others then."""
    folder, result = measured
    content = json.loads((folder / "release/dataset.json").read_text())["images"]
    raw = [[one["raw"] for one in each["sentences"]] for each in content if each["split"] == "test"]
    wanted = of_open_clip(folder, raw)
    assert {name: result[name] for name in wanted} != wanted


def test_the_documents_lines_give_clip_benchmarks_figures_of_a_run(measured, monkeypatch, capsys):
    folder, result = measured
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/zero_shot.md").read_text(encoding="utf-8"), re.S)
    (lines,) = [block for block in blocks if "clip_benchmark" in block]
    exec(lines.replace("outputs/itr_rsicd_clip", "run"), {})
    printed = np.array([float(number) for number in re.findall(r"\d+\.\d+", capsys.readouterr().out)])
    wanted = [result[f"{side}_r{k}"] for k in DEPTHS for side in SIDES]
    np.testing.assert_allclose(printed, wanted, atol=100 / 24 + 0.01)  # saved in half precision: a rank may change
