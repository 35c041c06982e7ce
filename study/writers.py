"""A study's page as table.md, table.tex, table.csv and table.html."""

import base64
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from study.plan import FIGURES
from study.summary import Summary
from study.tables import DIFFERENCE, MEASURED, PUBLISHED, Page, Table
from utils.files import write_whole
from utils.pages import page_template

TEMPLATE = "table_template.html"
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


def write_page(output_dir: Path, page: Page, summaries: Sequence[Summary], pictures: Sequence[Path]) -> None:
    """Write the page's four forms to the folder; `pictures` are PNG files in it, shown with it."""
    forms = {
        "table.md": markdown(page, [picture.name for picture in pictures]),
        "table.tex": latex(page),
        "table.csv": comma_separated(summaries),
        "table.html": html(page, pictures),
    }
    for name, text in forms.items():
        write_whole(output_dir / name, text.encode())


def markdown(page: Page, pictures: Sequence[str]) -> str:
    """The page for a README; pictures by name, as files beside it."""
    parts = [f"# {_md(page.title)}", _md_table(page.figures), _md_table(page.costs)]
    parts += ["\n".join(f"- {_md(note)}" for note in page.notes)]
    parts += [_md_fenced(each.lines) if each.typed else "\n".join(each.lines) for each in page.about]
    parts += [f"![{name}]({name})" for name in pictures]
    parts += ["Made by:", _md_fenced(page.commands)]
    return "\n\n".join(parts) + "\n"


def _md(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _md_fenced(lines: Sequence[str]) -> str:
    return "\n".join(["```bash", *lines, "```"])


def _md_table(table: Table) -> str:
    lines = ["| " + " | ".join(map(_md, table.header)) + " |", "|" + "---|" * len(table.header)]
    for line in table.lines:
        cells = [f"*{_md(cell)}*" if cell and line.kind != MEASURED else _md(cell) for cell in line.cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def latex(page: Page) -> str:
    """Two table environments for a document that loads booktabs; notes and commands as comments."""
    about = [line for paragraph in page.about for line in paragraph.lines]
    said = (page.title, *page.notes, *about, "Made by:", *page.commands)
    comments = [f"% {' '.join(text.split())}" for text in said]
    return "\n".join([*comments, _tex_table(page.figures, page.title), "", _tex_table(page.costs, page.title), ""])


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in " ".join(text.split()))


def _tex_table(table: Table, caption: str) -> str:
    def row(cells: Sequence[str]) -> str:
        text = " & ".join(cells)
        return ("{}" if text[:1] in ("[", "*") else "") + text + r" \\"  # or the row before takes it for an option

    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(caption)}}}", r"\resizebox{\linewidth}{!}{%"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}", r"\toprule", row(map(_tex, table.header))]
    lines.append(r"\midrule")
    for line in table.lines:
        cells = [_tex(cell) for cell in line.cells]
        lines.append(row(cells if line.kind == MEASURED else [rf"\textit{{{cell}}}" if cell else "" for cell in cells]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}"])


def comma_separated(summaries: Sequence[Summary]) -> str:
    """A line for each row and kind, unrounded, for programs; what is not there is empty."""
    text = io.StringIO()
    columns = ["row", "title", "kind", "seeds", "missing_seeds", *FIGURES, *(f"{name}_sd" for name in FIGURES)]
    columns += ["r_mean_low", "r_mean_high", "paired_difference", "paired_low", "paired_high", "paired_seeds"]
    columns += ["train_seconds", "peak_memory_bytes", "parameters_total", "parameters_trained", "source"]
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for s in summaries:
        named = {"row": s.name, "title": s.title}
        writer.writerow(named | {"kind": MEASURED} | _measured_values(s))
        if s.published:
            writer.writerow(named | {"kind": PUBLISHED, "source": s.source} | s.published)
        if s.differences:
            writer.writerow(named | {"kind": DIFFERENCE.replace("−", "-")} | s.differences)
    return text.getvalue()


def _measured_values(s: Summary) -> dict[str, object]:
    values: dict[str, object] = {"seeds": " ".join(str(run.seed) for run in s.runs)}
    values |= {"missing_seeds": " ".join(map(str, s.missing)), "train_seconds": s.seconds}
    values |= {"peak_memory_bytes": s.peak_memory, **(s.means or {})}
    values |= {f"{name}_sd": value for name, value in (s.spreads or {}).items()}
    if s.interval:
        values |= {"r_mean_low": s.interval[0], "r_mean_high": s.interval[1]}
    if s.paired:
        p = s.paired
        values |= {"paired_difference": p.difference, "paired_low": p.low, "paired_high": p.high}
        values["paired_seeds"] = " ".join(map(str, p.seeds))
    if s.parameters:
        values |= {"parameters_total": s.parameters.total, "parameters_trained": s.parameters.trained}
    return values


def html(page: Page, pictures: Sequence[Path]) -> str:
    """One file that needs no other: its pictures are inside."""
    inside = [(picture.name, base64.b64encode(picture.read_bytes()).decode()) for picture in pictures]
    return (
        page_template(Path(__file__).with_name(TEMPLATE)).render(page=page, pictures=inside, measured=MEASURED) + "\n"
    )
