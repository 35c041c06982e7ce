"""The structure that docs/house.md describes: which room may import which, and how much training brings along."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = {"run", "Retrieval", "Prior", "Prepare", "Tables", "Search", "Export", "ZeroShot"}
ROOMS = ("dataset", "export", "models", "search", "study", "utils", "zeroshot")
ALONE = ("export", "search", "zeroshot")  # rooms of one script each
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts): file
    for file in [*ROOT.glob("*.py"), *(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))]
}


def imported(module: str) -> set[str]:
    """The project's modules that a module's import statements name, those inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name in MODULES}


def importers(of: str, by: str) -> list[str]:
    """`a imports b` for every module under `by` that imports one under `of`."""
    return [
        f"{module} imports {name}"
        for module in MODULES
        if module == by or module.startswith(f"{by}.")
        for name in imported(module)
        if name == of or name.startswith(f"{of}.")
    ]


@pytest.mark.parametrize(
    ("by", "of"),
    [
        *(("utils", room) for room in ("dataset", "export", "models", "search", "study", "zeroshot")),
        *(("dataset", room) for room in ("export", "models", "search", "study", "zeroshot")),
        *(("models", room) for room in ("export", "search", "study", "zeroshot")),
        *(("study", room) for room in ("export", "search", "zeroshot")),
        *((one, other) for one in ALONE for other in ALONE if one != other),
        ("models", "utils.prior_config"),
        ("models", "dataset.annotations"),
        ("study", "models"),
        ("optim", "models"),
        ("scheduler", "models"),
    ],
)
def test_streets_are_one_way(by, of):
    assert importers(of, by) == []


def test_nothing_imports_a_script():
    assert [found for script in SCRIPTS for module in MODULES for found in importers(script, module)] == []


def test_what_trains_imports_nothing_of_what_prepares_draws_or_tabulates():
    for room in ("dataset.releases", "dataset.drawn", "study", *ALONE):
        trained = [m for m in MODULES if m.startswith("dataset.") and not m.startswith(("dataset.r", "dataset.d"))]
        assert [found for module in (*trained, "Retrieval", "Prior") for found in importers(room, module)] == []


def test_a_training_brings_at_most_5000_lines_of_the_project():
    """On import. What few runs need (cache, shards, pictures of examples, starts) comes when asked for."""
    code = "import sys, Retrieval\nfor m in list(sys.modules.values()): print(getattr(m, '__file__', None))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    brought = {Path(name) for name in done.stdout.splitlines()}
    files = [file for file in MODULES.values() if file in brought]
    assert {ROOT / "Retrieval.py", ROOT / "models/pir.py", ROOT / "utils/training.py"} <= set(files)
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= 5000
    assert not [file for file in files if {"drawn", "releases", "study", *ALONE} & set(file.relative_to(ROOT).parts)]


def test_only_what_starts_fills_and_loads_reads_files_in_models():
    readers = ("read_torch_file", "read_checkpoint", "load_file", "open(", "read_text", "read_json")
    found = {
        module
        for module, file in MODULES.items()
        if module.startswith("models.") and any(name in file.read_text(encoding="utf-8") for name in readers)
    }
    assert found == {"models.start_files", "models.filling"}


def test_no_file_outgrows_its_room():
    long = {module: len(file.read_text(encoding="utf-8").splitlines()) for module, file in MODULES.items()}
    assert {module: lines for module, lines in long.items() if lines > 320} == {}
