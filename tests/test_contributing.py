"""CONTRIBUTING.md: adding a loss, an encoder and a data set, each done once as written, in a copy of the project."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^ *```(?:python|yaml)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"# (?P<file>[\w./]+\.(?:py|yaml))(?:, (?P<how>after|before|in place of): (?P<line>.+))?")
NOT_COPIED = (".git", ".venv*", "outputs", "data", "checkpoints", "*_cache", "__pycache__", "images")


def blocks():
    """(file, where, line, content) of each code block that changes the project, in order."""
    for text in BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        indent = len(text) - len(text.lstrip(" "))
        first, *lines = [line[indent:] for line in text.splitlines()]
        if place := PLACE.fullmatch(first):
            yield place["file"], place["how"], place["line"], "\n".join(lines) + "\n"


def apply(root, file, how, line, content):
    """Make the change that a block describes."""
    target = root / file
    if how is None:
        target.write_text((target.read_text() + "\n\n" if target.exists() else "") + content)
        return
    lines = target.read_text(encoding="utf-8").splitlines(keepends=True)
    (at,) = (number for number, each in enumerate(lines) if each.strip() == line)
    first, last = {"after": (at + 1, at + 1), "before": (at, at), "in place of": (at, at + 1)}[how]
    target.write_text("".join([*lines[:first], content, *lines[last:]]), encoding="utf-8")


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy of the project with everything done that CONTRIBUTING.md says."""
    root = tmp_path_factory.mktemp("contribution") / "project"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*NOT_COPIED))
    for block in blocks():
        apply(root, *block)
    return root


def run(root, *arguments):
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=root, capture_output=True, text=True, timeout=280)
    return done.returncode, done.stdout[-3000:] + done.stderr[-1000:]


def test_the_guide_changes_files_of_each_kind():
    files = [file for file, *_ in blocks()]
    assert len(files) > 12 and {"models/losses.py", "models/retrieval.py", "models/backbones.py", "Prepare.py"} <= set(
        files
    )


def test_a_loss_an_encoder_and_a_data_set_are_added_as_written(changed):
    code, printed = run(
        changed, "pytest", "-n", "0", *(f"tests/test_{name}.py" for name in ("margin_loss", "patch_cnn", "harbours"))
    )
    assert code == 0, printed


def test_what_the_guide_adds_is_clean(changed):
    code, printed = run(changed, "ruff", "check", ".")
    assert code == 0, printed
