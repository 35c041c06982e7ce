"""`from models import load`: a trained model that embeds anybody's pictures and sentences."""

import re
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.drawn.scenes import vocabulary
from dataset.pictures import load_picture
from models import load
from tests.tiny_folder import write_model
from utils.errors import InputError

ROOT = Path(__file__).parents[1]
SENTENCES = ["A lake, beside a road!", "two white planes"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as a run leaves it, with its vocabulary beside."""
    folder = write_model(tmp_path_factory.mktemp("run"))
    for file in ("vision_config.json", "text_config.json"):
        (folder / file).unlink()  # the config holds the sizes
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, seed in (("a.png", 0), ("b.png", 1), ("c.png", 2)):
        pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return [folder / name for name in ("a.png", "b.png", "c.png")]


def test_three_lines_embed_pictures_and_sentences(folder, pictures):
    model = load(folder)
    images, texts = model.embed_images(pictures), model.embed_texts(SENTENCES)
    assert (images.shape, texts.shape, images.dtype, texts.dtype) == ((3, 32), (2, 32), np.float32, np.float32)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-5)


def test_the_first_lines_of_the_document_run_in_the_repositorys_folder(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    lines = re.search(r"```python\n(.*?)```", (ROOT / "docs/embedding.md").read_text(encoding="utf-8"), re.S)[1]
    exec(lines, {})
    assert re.fullmatch(r"\[\[-?0\.\d+\]\]\n", capsys.readouterr().out)


def test_a_picture_may_be_a_file_an_array_or_a_pil_picture(folder, pictures):
    model = load(folder / "checkpoint_best.pth")
    wanted = model.embed_images(pictures)
    np.testing.assert_allclose(model.embed_images([load_picture(str(file)) for file in pictures]), wanted, atol=1e-6)
    np.testing.assert_allclose(model.embed_images([Image.open(file) for file in pictures]), wanted, atol=1e-6)
    with pytest.raises(InputError, match=r"float64 \[60, 80, 3\], expected uint8"):
        model.embed_images([np.zeros((60, 80, 3))])


@pytest.mark.parametrize(
    "wrong", [None, 3, torch.zeros(3, 8, 8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)]
)
def test_what_is_no_picture_is_one_line(folder, wrong):
    with pytest.raises(InputError, match="a picture is"):
        load(folder).embed_images([wrong])


def test_one_name_or_sentence_is_not_taken_letter_by_letter(folder):
    model = load(folder)
    with pytest.raises(InputError, match=r"sentences are given as a list; for one, write \['lake'\]"):
        model.embed_texts("lake")
    with pytest.raises(InputError, match="pictures are given as a list"):
        model.embed_images("x.jpg")


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint at '.*nowhere': give a folder or weights"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no checkpoint at ''"):
        load("")


def test_embeddings_are_in_the_order_given_and_do_not_depend_on_the_company(folder, pictures):
    model = load(folder)
    together = model.embed_texts(["two white planes beside a long grey terminal", *SENTENCES])
    np.testing.assert_allclose(model.embed_texts(SENTENCES), together[1:], atol=1e-6)
    np.testing.assert_allclose(model.embed_images(pictures[::-1]), model.embed_images(pictures)[::-1], atol=1e-6)


@pytest.mark.parametrize("masked", [True, False])
def test_a_sentence_that_is_there_twice_is_embedded_once_where_its_company_does_not_count(folder, monkeypatch, masked):
    model = load(folder, override=[f"mask_padding={masked}"])
    seen, encode = [], model.model.encode_text
    monkeypatch.setattr(model.model, "encode_text", lambda ids, mask: seen.append(len(ids)) or encode(ids, mask))
    first, second, again, third = model.embed_texts([*SENTENCES, SENTENCES[0], "a road"])
    assert sum(seen) == (3 if masked else 4)
    np.testing.assert_allclose(again, first, atol=1e-6)
    alone = [model.embed_texts([sentence])[0] for sentence in (SENTENCES[1], "a road")]
    if masked:
        np.testing.assert_allclose([second, third], alone, atol=1e-6)


def test_sentences_are_cleaned_as_captions_are(folder):
    model = load(folder)
    np.testing.assert_array_equal(model.embed_texts(SENTENCES[:1]), model.embed_texts(["a lake beside a road"]))
    with pytest.raises(InputError, match="no word left"):
        model.embed_texts(["..."])


def test_nothing_to_embed_gives_no_rows(folder):
    model = load(folder)
    assert model.embed_images([]).shape == model.embed_texts([]).shape == (0, 32)


def test_loading_shows_no_progress_and_leaves_the_random_numbers_alone(folder, pictures, capsys):
    model = load(folder)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    model.embed_images(pictures)
    assert torch.equal(torch.rand(2), expected)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda folder: (folder / "config.yaml").unlink(),
            "has no config: config.yaml must lie beside checkpoint_best.pth",
        ),
        (
            lambda folder: (folder / "checkpoint_best.pth").unlink(),
            "holds neither checkpoint_best.pth nor model.safetensors",
        ),
        (lambda folder: (folder / "config.yaml").write_text("train_file: a\n"), "is missing"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_line(folder, tmp_path, change, said):
    for name in ("config.yaml", "checkpoint_best.pth"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    change(tmp_path)
    with pytest.raises(InputError, match=said) as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


def test_another_vocabulary_may_be_named(folder, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    np.testing.assert_array_equal(
        load(folder, tokenizer=str(tmp_path)).embed_texts(SENTENCES), load(folder).embed_texts(SENTENCES)
    )
    with pytest.raises(InputError, match="nowhere"):
        load(folder, tokenizer="nowhere")


def test_scores_are_the_cosines_of_pictures_and_sentences(folder, pictures):
    model = load(folder)
    scores = model.score(pictures, SENTENCES)
    assert scores.shape == (3, 2) and scores.dtype == np.float32
    np.testing.assert_allclose(scores, model.embed_images(pictures) @ model.embed_texts(SENTENCES).T, atol=1e-6)
    assert model.score([], SENTENCES).shape == (0, 2) and model.score(pictures, []).shape == (3, 0)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_eight_threads_get_what_one_does(folder, pictures, precision):
    model = load(folder, device="cpu", override=[f"precision={precision}"])
    sentences = [" ".join(SENTENCES[1].split()[: 1 + i % 3]) for i in range(16)]
    wanted = model.embed_images(pictures), model.embed_texts(sentences)
    filters = list(warnings.filters)

    def ask(number):
        """Each another part, so that the tokenizer and the batches differ between threads."""
        texts = model.embed_texts(sentences[number % 8 :])
        model.tokenizing.acquire()  # as whoever uses the tokenizer beside
        model.tokenizer("a lake", truncation=True, max_length=3 + number % 4)
        model.tokenizing.release()
        return texts, model.embed_images(pictures[number % 3 :])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(ask, range(48)))
    finally:
        sys.setswitchinterval(before)
    tolerance = 1e-6 if precision == "float32" else 0.02
    for number, (texts, images) in enumerate(found):
        np.testing.assert_allclose(texts, wanted[1][number % 8 :], atol=tolerance)
        np.testing.assert_allclose(images, wanted[0][number % 3 :], atol=tolerance)
    assert warnings.filters == filters


def test_a_value_of_the_config_may_be_changed(folder):
    assert load(folder, override=["max_tokens=5"]).config.max_tokens == 5
    with pytest.raises(InputError, match="strange"):
        load(folder, override=["strange=1"])


def test_weights_whose_folder_is_not_there_do_not_take_the_config_of_the_current_one(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=r"no checkpoint at 'nowhere/checkpoint_best.pth'"):
        load("nowhere/checkpoint_best.pth")


def test_weights_without_a_config_and_a_folder_without_either_are_one_line(folder, tmp_path):
    with pytest.raises(InputError, match=r"holds neither checkpoint_best.pth nor model.safetensors"):
        load(tmp_path)
    (tmp_path / "weights.pth").write_bytes((folder / "checkpoint_best.pth").read_bytes())
    with pytest.raises(InputError, match=r"weights.pth has no config: config.yaml must lie beside weights.pth"):
        load(tmp_path / "weights.pth")
    named = load(tmp_path / "weights.pth", config_file=folder / "config.yaml")
    np.testing.assert_array_equal(named.embed_texts(SENTENCES), load(folder).embed_texts(SENTENCES))


@pytest.mark.parametrize("name", ["", "image_encoder.onnx"])
def test_an_onnx_export_is_said_to_be_one(tmp_path, name):
    for file in ("preprocessing.json", "image_encoder.onnx"):
        (tmp_path / file).touch()
    with pytest.raises(InputError, match="is of an ONNX export; load reads the formats folder and compact"):
        load(tmp_path / name)


@pytest.mark.parametrize("wrong", ["tpu", "CPU", "mps", "", None, 5, torch.device("cpu")])
def test_what_is_no_device_is_one_line(folder, wrong):
    with pytest.raises(InputError) as raised:
        load(folder, device=wrong)
    assert str(raised.value) == f"{wrong!r} is no device: give auto, cpu, cuda or cuda:N"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Image.new("RGB", (4, 4)), r"are given as a list; for one, write \[picture\]"),
        (np.zeros((4, 4, 3), np.uint8), r"are given as a list; for one, write \[picture\]"),
        ((name for name in "ab"), "are a generator; give a list"),
        ({"a.png": 1}, "are a dict; give a list"),
        (None, "are a NoneType; give a list"),
    ],
    ids=["PIL picture", "array", "generator", "dict", "None"],
)
def test_what_is_no_list_is_one_line(folder, wrong, said):
    model = load(folder)
    with pytest.raises(InputError, match=f"pictures {said}"):
        model.embed_images(wrong)
    with pytest.raises(InputError, match=f"sentences {said}"):
        model.embed_texts(wrong)


def test_lists_of_other_kinds_are_taken(folder, pictures):
    model = load(folder)
    np.testing.assert_array_equal(model.embed_texts(np.array(SENTENCES)), model.embed_texts(tuple(SENTENCES)))
    assert model.embed_images(np.zeros((2, 8, 8, 3), np.uint8)).shape == (2, 32)


@pytest.mark.parametrize("wrong", [None, 3, b"a lake", ["a lake"]])
def test_a_sentence_that_is_no_text_is_one_line(folder, wrong):
    with pytest.raises(InputError, match=rf"sentence 1 is a {type(wrong).__name__}; give a text"):
        load(folder).embed_texts(["a lake", wrong])


def test_an_override_that_is_no_list_is_one_line(folder):
    with pytest.raises(InputError, match=r"overrides are given as a list; for one, write \['max_tokens=5'\]"):
        load(folder, override="max_tokens=5")
    with pytest.raises(InputError, match="overrides are a NoneType"):
        load(folder, override=None)
