"""A page of tables, notes and pictures, and its four forms: Markdown, LaTeX, HTML, and a CSV for programs."""

import base64
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from textwrap import dedent

from utils.files import write_whole
from utils.pages import page_template

TEMPLATE = Path(__file__).with_name("page.html")
_TEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "→": r"$\to$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


@dataclass(frozen=True)
class Line:
    """A line of a table."""

    cells: tuple[str, ...]
    italic: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and lines of equal length."""

    header: tuple[str, ...]
    lines: tuple[Line, ...]
    names: int = 1  # columns at the left that are names, set to the left; numbers are set to the right


@dataclass(frozen=True)
class Page:
    """All that is written of a study, or of released checkpoints."""

    title: str
    tables: Sequence[Table]
    values: Sequence[Mapping[str, object]]  # the CSV's lines, unrounded; the first has every key
    notes: Sequence[str]
    commands: Sequence[str]
    pictures: Sequence[Path] = ()  # PNG files in the page's folder
    about: str = ""  # paragraphs; indented lines are commands


def write_page(folder: Path, name: str, page: Page) -> None:
    """Write `NAME.md`, `.tex`, `.html` and `.csv` to the folder."""
    forms = {"md": markdown, "tex": latex, "html": html, "csv": comma_separated}
    for ending, form in forms.items():
        write_whole(folder / f"{name}.{ending}", form(page).encode())


def paragraphs(text: str) -> Iterator[tuple[bool, list[str]]]:
    """The lines of each paragraph, and whether they are indented (a command, to be shown as it is typed)."""
    kinds = groupby(text.splitlines(), lambda line: (bool(line.strip()), line.startswith(" ")))
    for (filled, typed), lines in kinds:
        if filled:
            yield typed, dedent("\n".join(lines)).splitlines()


def markdown(page: Page) -> str:
    """The page for a README; pictures by name, as files in its folder."""
    parts = [f"# {_md(page.title)}", *map(_md_table, page.tables), "\n".join(f"- {_md(note)}" for note in page.notes)]
    parts += [_md_typed(lines) if typed else "\n".join(lines) for typed, lines in paragraphs(page.about)]
    parts += [f"![{picture.name}]({picture.name})" for picture in page.pictures]
    return "\n\n".join([*parts, "Made by:", _md_typed(page.commands)]) + "\n"


def _md(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _md_typed(lines: Sequence[str]) -> str:
    return "\n".join(["```bash", *lines, "```"])


def _md_table(table: Table) -> str:
    numbers = len(table.header) - table.names
    rows = [list(map(_md, table.header)), ["---"] * table.names + ["---:"] * numbers]
    rows += [[f"*{_md(c)}*" if c and line.italic else _md(c) for c in line.cells] for line in table.lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def latex(page: Page) -> str:
    """A table environment for each table, for a document that loads booktabs; notes and commands as comments."""
    about = [line for _, lines in paragraphs(page.about) for line in lines]
    comments = [f"% {' '.join(text.split())}" for text in (page.title, *page.notes, *about, "Made by:", *page.commands)]
    return "\n".join(comments) + "\n" + "\n".join(_tex_table(table, page.title) for table in page.tables)


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in " ".join(text.split()))


def _tex_table(table: Table, caption: str) -> str:
    def row(cells: Sequence[str]) -> str:
        text = " & ".join(cells)
        return ("{}" if text[:1] in ("[", "*") else "") + text + r" \\"  # or the row before takes it for an option

    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(caption)}}}", r"\resizebox{\linewidth}{!}{%"]
    columns = "l" * table.names + "r" * (len(table.header) - table.names)
    header = row([_tex(name) for name in table.header])
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header, r"\midrule"]
    for line in table.lines:
        lines.append(row([rf"\textit{{{_tex(c)}}}" if c and line.italic else _tex(c) for c in line.cells]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def html(page: Page) -> str:
    """One file that needs no other: its pictures are inside."""
    inside = [(picture.name, base64.b64encode(picture.read_bytes()).decode()) for picture in page.pictures]
    return page_template(TEMPLATE).render(page=page, about=paragraphs(page.about), pictures=inside) + "\n"


def comma_separated(page: Page) -> str:
    """The page's values."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(page.values[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(page.values)
    return text.getvalue()
