"""Files from outside: code that they bring is never run, and what they hold is read as what it should be alone."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from dataset.pictures import load_picture
from dataset.tokenizer import load_tokenizer
from utils.errors import InputError

ROOT = Path(__file__).parents[1]
PRODUCT = [
    *ROOT.glob("*.py"),
    *(f for room in ("dataset", "models", "study", "utils") for f in (ROOT / room).rglob("*.py")),
]
EVIL = "open({marker!r}, 'w').write('ran')\nfrom transformers import BertTokenizerFast as Evil\n"


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "ran"


@pytest.fixture
def folder(tmp_path, marker):
    """A tokenizer's folder that brings code."""
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)))
    return folder


@pytest.mark.parametrize("file", ("tokenizer_config.json", "config.json"))
@pytest.mark.parametrize("kind", ("Evil", None))
def test_a_tokenizer_that_brings_code_is_refused_without_a_question(folder, marker, file, kind):
    named = {"tokenizer_class": kind} if kind else {}
    (folder / file).write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}} | named))
    code = (
        "import sys; from pathlib import Path; from dataset.tokenizer import load_tokenizer; from utils.errors import "
    )
    code += "run_cli; run_cli(lambda: load_tokenizer(Path(sys.argv[1]), 100) and None)"
    # `y` is what would run it where transformers asks
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, input="y\n" * 9, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stderr.startswith("error: tokenizer in ") and done.stderr.count("\n") == 1
    assert "[y/N]" not in done.stdout and not marker.exists()


def test_a_tokenizer_of_a_known_kind_is_read_without_the_code_beside_it(folder, marker):
    named = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    assert load_tokenizer(folder, 100)("a").input_ids == [2, 5, 3]
    assert not marker.exists()


def test_a_picture_that_is_a_program_is_not_run(tmp_path, monkeypatch):
    def started(*_, **__):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)
    (tmp_path / "0.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match=r"cannot read the picture .*0\.jpg"):
        load_picture(tmp_path / "0.jpg")


def test_pictures_of_the_usual_formats_are_read_whatever_they_are_named(tmp_path):
    for kind in ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "JPEG2000", "GIF"):
        Image.new("RGB", (20, 10), (200, 30, 40)).save(tmp_path / "picture.jpg", format=kind)
        assert load_picture(tmp_path / "picture.jpg").shape == (10, 20, 3)


def calls(name):
    """Every call of a function of that name in the product: (file, the names of its keyword arguments)."""
    for file in PRODUCT:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(name):
                yield file.relative_to(ROOT).as_posix(), {word.arg: ast.unparse(word.value) for word in node.keywords}


def test_every_picture_is_opened_as_one_of_the_formats_meant():
    opened = list(calls("Image.open"))
    assert len(opened) > 3 and {words.get("formats") for _, words in opened} == {"PICTURE_FORMATS"}, opened


def test_nothing_asks_for_code_from_a_folder_or_a_hub():
    assert {words.get("trust_remote_code") for _, words in calls(".from_pretrained")} == {"False"}
    assert {words.get("weights_only") for _, words in calls("torch.load")} == {"True"}
