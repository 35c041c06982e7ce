"""The documents: short and plain, their links lead somewhere, and what they say of the repository is so."""

import re
import shlex
import statistics
from pathlib import Path

import pytest

from utils.launch import TASKS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES += [ROOT / "docs/studies/README.md", ROOT / "checkpoints/README.md", ROOT / "data/README.md"]
EACH = pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])


def without_code(text):
    """A page without its fenced blocks, each line of which is blanked."""
    return re.sub(r"^ *```.*?^ *```$", lambda m: "\n" * m[0].count("\n"), text, flags=re.M | re.S)


def bash_blocks(text):
    return re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def sentences(text):
    """The sentences of a page's running text, code, tables and headings left out; inline code is one word."""
    lines = [line.strip() for line in without_code(text).splitlines()]
    lines = ["" if re.match(r"[|#!]", line) else line for line in lines]
    text = re.sub(r"^(?:[-*]|\d+\.) ", "\n", "\n".join(lines), flags=re.M)  # an item of a list begins anew
    text = re.sub(r"`[^`]*`", "Code", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("*", "")
    paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))
    return [s for p in paragraphs for s in re.split(r"(?<=[.!?:])\s+(?=[A-Z0-9\"(])", p) if re.search(r"\w", s)]


def words(sentence):
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


def test_the_readmes_sentences_are_short():
    lengths = {sentence: words(sentence) for sentence in sentences(README)}
    assert len(lengths) > 30
    assert statistics.median(lengths.values()) <= 18
    assert {sentence: length for sentence, length in lengths.items() if length > 40} == {}


def test_sentences_are_told_apart_as_a_reader_does():
    text = "# No heading\nOne two. Three\nfour `a b c`!\n\n| no | table |\n\n- item one\n- item [two](x.md) e.g. two\n"
    text += "```python\nno = code\n```\nLast: of all."
    assert sentences(text) == ["One two.", "Three four Code!", "item one", "item two e.g. two", "Last: of all."]


@EACH
def test_every_link_leads_to_a_file_and_a_heading(page):
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8")))
    broken = []
    for link in links:
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert broken == []


@EACH
def test_no_page_cites_what_a_reader_does_not_have(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"\bSPEC\b.*|\.\./shared.*|DESIGN\.md", text) == []


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            found = re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", page.read_text(encoding="utf-8"))
            waiting += [(page.parent / link).resolve() for link in found if not link.startswith("http")]
    assert set(PAGES) - {ROOT / "data/README.md"} <= reached


def test_every_path_of_the_map_exists():
    text = without_code((ROOT / "docs/house.md").read_text(encoding="utf-8"))
    named = re.findall(r"`([\w./-]+(?:/|\.py|\.md|\.yaml))`", text)
    assert len(named) > 40
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_citation_of_the_behaviour_names_a_section():
    sections = set(re.findall(r"^## (\d)\. ", (ROOT / "docs/behaviour.md").read_text(encoding="utf-8"), re.M))
    assert sections == set("123456789")
    for file in sorted(file for folder in ("", "*/", "dataset/*/") for file in ROOT.glob(f"{folder}*.py")):
        for cited in re.findall(r"docs/behaviour\.md, (\d)", file.read_text(encoding="utf-8")):
            assert cited in sections, file


def test_the_readmes_commands_are_those_of_ci():
    """The same requirements installed in the same way, and the same test command."""

    def steps(commands):
        requirements, last = set(), None
        for command in commands:
            parts = [part for part in shlex.split(command, comments=True) if part != "-q"]
            if parts[:2] == ["pip", "install"]:
                files = [parts[i + 1] for i, part in enumerate(parts) if part == "-r"]
                requirements |= {(file, "--no-deps" in parts) for file in files}
            elif parts[:1] == ["python"]:
                last = parts
        return requirements, last

    demonstration, tests = bash_blocks(README)[:2]
    one = [command for block in (demonstration, tests) for command in block.strip().split(" && ")]
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert one[0] == "python3 -m venv .venv" and demonstration.endswith(" python run.py --task itr_demo\n")
    assert steps(one) == steps(ci)
    assert steps(ci)[1] == ["python", "-m", "pytest"]
    assert {"ruff check .", "ruff format --check .", "mypy"} <= set(ci)
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert "- run: bash .ci/run\n" in workflow


def test_the_readmes_tasks_are_the_launchers():
    table = README.partition("## Tasks")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| `([\w/.]+)` \|$", table, re.M)
    assert dict(rows) == TASKS and len(rows) == len(TASKS)


def test_measured_figures_of_the_readme_are_on_the_page_that_says_how_they_were_measured():
    table = README.partition("## Measured results")[2].partition("\n## ")[0]
    rows = [re.findall(r"\d+\.\d+", line) for line in table.splitlines() if line.startswith("|")]
    rows = [row for row in rows if row]
    assert [len(row) for row in rows] == [7] * 6
    results = re.findall(r"\d+\.\d+", (ROOT / "docs/results.md").read_text(encoding="utf-8"))
    together = [results[at : at + 7] for at in range(len(results))]
    assert [row for row in rows if row not in together] == []


def test_every_module_is_on_the_map():
    house = (ROOT / "docs/house.md").read_text(encoding="utf-8")
    rooms = ("dataset", "export", "models", "search", "study", "utils", "zeroshot")
    modules = [file.relative_to(ROOT).as_posix() for room in rooms for file in (ROOT / room).glob("*.py")]
    assert [name for name in modules if not name.endswith("__init__.py") and f"`{name}`" not in house] == []
