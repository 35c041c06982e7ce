"""`released.md`, `.html` and `.csv`: what checkpoints give here beside what is published of them."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from study.plan import FIGURES
from study.published import Match, read_published
from utils.files import write_whole
from utils.pages import page_template

CURVES = "curves.png"
TEMPLATE = "released_template.html"
HEADER = ("checkpoint", "data set", "method", "", *(name.replace("_r", " R@") for name in FIGURES[:-1]), "mean")


@dataclass(frozen=True)
class Row:
    """A checkpoint: what it is and what it gave."""

    name: str
    command: str  # that measures it
    match: Match
    measured: Mapping[str, float] | None  # percent; None: not measured
    problem: str = ""  # why not, where it failed


@dataclass(frozen=True)
class Line:
    """A line of the table: a checkpoint's measured, published or difference."""

    kind: str
    cells: tuple[str, ...]


def write_report(folder: Path, rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Write the three files to `folder`; where `curves.png` is there, the page shows it.

    notes: of the logs; those of the rows are added.
    """
    source = read_published().source
    explanation = (
        "Measured: on this machine, by the commands below, from the checkpoints and the test annotation files that "
        "their configs name. Recall and mean in percent.",
        f"Published: {source}, not measured here. A checkpoint's row is chosen by its config and the name and size of "
        "its test set, not by its folder's name; where these fit no row, no published number stands beside it. "
        "Difference: measured minus published.",
    )
    told = [f"{row.name}: {_remark(row)}" for row in rows if _remark(row)]
    lines = [line for row in rows for line in _lines(row)]
    commands = [row.command for row in rows]
    curves = folder / CURVES

    write_whole(folder / "released.csv", _csv(rows, source).encode())
    told = [*told, *notes]
    write_whole(folder / "released.md", _markdown(explanation, lines, told, curves.exists(), commands).encode())
    picture = base64.b64encode(curves.read_bytes()).decode() if curves.exists() else None
    page = page_template(Path(__file__).with_name(TEMPLATE)).render(
        explanation=explanation,
        header=HEADER,
        lines=lines,
        notes=told,
        curves=f"data:image/png;base64,{picture}" if picture else None,
        commands=commands,
    )
    write_whole(folder / "released.html", page.encode())


def _remark(row: Row) -> str:
    """Why a checkpoint is not measured, or why no published number stands beside it."""
    return row.problem or (f"no published number: {row.match.note}" if row.match.note else "")


def _lines(row: Row) -> list[Line]:
    """Measured, and where there is something to hold against it, published and the difference."""
    start = (row.name, (row.match.dataset or "").upper(), row.match.method or "")
    measured, published = row.measured, row.match.figures
    state = "measured" if measured else "failed" if row.problem else "not measured"
    lines = [Line("measured", (*start, state, *(_percent(measured, name) for name in FIGURES)))]
    if published:
        lines.append(Line("published", ("", "", "", "published", *(_percent(published, name) for name in FIGURES))))
    if measured and published:
        differences = (f"{measured[name] - published[name]:+.2f}" for name in FIGURES)
        lines.append(Line("difference", ("", "", "", "difference", *differences)))
    return lines


def _percent(figures: Mapping[str, float] | None, name: str) -> str:
    return f"{figures[name]:.2f}" if figures else "–"


def _markdown(
    explanation: Sequence[str], lines: Sequence[Line], notes: Sequence[str], curves: bool, commands: Sequence[str]
) -> str:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    table = [row(HEADER), "|" + "---|" * 4 + "---:|" * len(FIGURES), *(row(line.cells) for line in lines)]
    parts = ["# Released checkpoints", *explanation, "\n".join(table)]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    if curves:
        parts.append(f"![Mean recall and losses over epochs, from each checkpoint's log.txt]({CURVES})")
    parts.append("\n".join(["```bash", *commands, "```"]))
    return "\n\n".join(parts) + "\n"


def _csv(rows: Sequence[Row], source: str) -> str:
    """A line a checkpoint; `measured_*` and `published_*` in percent, empty where there is none."""
    text = io.StringIO()
    kinds = [f"{kind}_{name}" for kind in ("measured", "published") for name in FIGURES]
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["checkpoint", "dataset", "method", *kinds, "published_source", "note"])
    for row in rows:
        match = row.match
        figures = [(given or {}).get(name, "") for given in (row.measured, match.figures) for name in FIGURES]
        stated = source if match.figures else ""
        table.writerow([row.name, match.dataset, match.method, *figures, stated, _remark(row)])
    return text.getvalue()
