"""What a vocabulary does not know: said, counted, refused where nothing is known, drawn where a font has it."""

import json

import pytest
import torch
from PIL import Image

import Prepare
from dataset.tokenizer import load_tokenizer
from dataset.vocabulary import Vocabulary, unknown_share
from tests.small_releases import entry, make_release
from utils import examples
from utils.errors import InputError
from utils.examples import draw_examples


@pytest.fixture
def words(tmp_path):
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "green", "park", "##s", "caf", "é"])
    )
    return folder


def test_the_share_of_unknown_tokens_is_said(words):
    tokenizer = load_tokenizer(words, 100)
    captions = {"training": ["a green park", "a red park"], "test": ["green parks"]}
    line = unknown_share(captions, tokenizer)
    assert line.startswith("warning: the vocabulary does not know 1 of the captions' 9 tokens (11.11%)")
    assert unknown_share({"training": ["a green park"], "test": []}, tokenizer) is None


def test_captions_of_unknown_words_alone_are_refused(words):
    captions = {"training": ["a park", "绿色的公园"], "test": ["公园"]}
    with pytest.raises(InputError, match="knows no word of 2 captions, '绿色的公园' of the training captions first"):
        unknown_share(captions, load_tokenizer(words, 100))


def test_words_are_looked_up_as_the_tokenizer_cuts_them(words):
    vocabulary = Vocabulary(words)
    assert vocabulary.unknown_words(["parks", "red", "a", "red"]) == ["red"]


def test_preparation_counts_by_the_vocabulary_where_one_is_named(words, tmp_path, capsys):
    entries = [entry(f"beach_{i}.jpg", split) for i, split in enumerate(("train", "val", "test"))]
    entries[0]["sentences"] = [{"raw": raw} for raw in ("a green park", "a red park", "a café")]
    release = make_release(tmp_path / "release", "rsicd", entries)
    arguments = ["--dataset", "rsicd", "--release", str(release), "--output_dir", str(tmp_path / "out")]
    Prepare.main(arguments)
    report = json.loads((tmp_path / "out/report.json").read_text())["defects"]["captions_characters"]
    assert [item["detail"] for item in report["items"]] == ["é (U+00E9) in: a café"]
    Prepare.main([*arguments, "--vocabulary", str(words)])
    report = json.loads((tmp_path / "out/report.json").read_text())["defects"]["captions_characters"]
    details = [item["detail"] for item in report["items"] if item["image"] == "beach_0.jpg"]
    assert "red in: a red park" in details and not [detail for detail in details if detail.endswith("a green park")]
    capsys.readouterr()
    Prepare.main([*arguments, "--vocabulary", str(words)])
    assert "nothing to do" in capsys.readouterr().out


def test_captions_that_no_font_can_draw_are_named(tmp_path, capsys):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    given = {"images": [tmp_path / "a.png"], "own_image_of_text": [0], "title": ""}
    given |= {"image_embeds": torch.eye(1), "text_embeds": torch.eye(1)}
    draw_examples(tmp_path / "e.png", captions=["\U000e1234 park"], **given)
    assert "no installed font has all characters of 1 captions: \U000e1234 park" in capsys.readouterr().out
    draw_examples(tmp_path / "e.png", captions=["a café"], **given)
    assert capsys.readouterr().out == ""


def test_a_font_that_has_the_characters_is_taken():
    symbol = "⌽"  # DejaVu Sans has it not in every version; take one that another of matplotlib's fonts has
    usual = examples._characters(examples.USUAL_FONT)
    from matplotlib.font_manager import fontManager

    others = {font.fname for font in fontManager.ttflist if "Last Resort" not in font.name}
    only_there = sorted({sign for file in others for sign in examples._characters(examples.Path(file))} - usual)
    symbol = next(sign for sign in only_there if sign.isprintable())
    file = examples.font_with(frozenset(symbol))
    assert file != examples.USUAL_FONT and symbol in examples._characters(file)
