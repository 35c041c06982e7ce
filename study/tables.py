"""Summaries -> the lines of a study's two tables and the notes below them, whatever form they are written in."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import dedent

from study.bootstrap import DRAWS, PERCENT
from study.plan import FIGURES, Study
from study.summary import Summary

MEASURED, PUBLISHED, DIFFERENCE = "measured", "published", "measured − published"
NOT_THERE = "–"
HEADINGS = ("I→T R@1", "I→T R@5", "I→T R@10", "T→I R@1", "T→I R@5", "T→I R@10", "mean")


@dataclass(frozen=True)
class Line:
    """A line of a table: what it is of, and a text for each column."""

    kind: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Columns and lines of equal length."""

    header: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Paragraph:
    """Lines of text, or of what is typed as it stands."""

    lines: tuple[str, ...]
    typed: bool


@dataclass(frozen=True)
class Page:
    """All that is written of a study."""

    title: str
    figures: Table
    costs: Table
    notes: tuple[str, ...]
    about: tuple[Paragraph, ...]  # what the study file says of itself
    commands: tuple[str, ...]


def page_of(study: Study, summaries: Sequence[Summary], remarks: Sequence[str], commands: Sequence[str]) -> Page:
    """The page of a study; `remarks`: what else a reader must know of these runs."""
    notes = [*_meaning(study, summaries), *remarks, *_sources(summaries)]
    tables = figures_table(study, summaries), costs_table(summaries)
    return Page(study.title, *tables, tuple(notes), paragraphs(study.notes or ""), tuple(commands))


def paragraphs(text: str) -> tuple[Paragraph, ...]:
    """Text whose indented lines are commands -> its paragraphs in order; an empty line ends one, too."""
    kinds = groupby(text.splitlines(), lambda line: (bool(line.strip()), line.startswith(" ")))
    found = ((typed, list(lines)) for (there, typed), lines in kinds if there)
    return tuple(Paragraph(tuple(dedent("\n".join(lines)).splitlines()), typed) for typed, lines in found)


def figures_table(study: Study, summaries: Sequence[Summary]) -> Table:
    """Up to three lines a row: measured, published, and their difference."""
    paired = (f"mean − that of {study.title_of(study.compare_to)}",) if study.compare_to else ()
    header = ("row", "", "seeds", *HEADINGS, f"{PERCENT} % interval of the mean", *paired)
    lines = []
    for summary in summaries:
        rest = [_interval(summary), *([_paired(study, summary)] if paired else [])]
        lines.append(_line(MEASURED, summary.title, str(len(summary.runs)), _measured(summary), rest))
        blank = ["" for _ in rest]
        if summary.published:
            published = {name: f"{value:.2f}" for name, value in summary.published.items()}
            lines.append(_line(PUBLISHED, summary.title, "", published, blank))
        if summary.differences:
            differences = {name: signed(value) for name, value in summary.differences.items()}
            lines.append(_line(DIFFERENCE, summary.title, "", differences, blank))
    return Table(header, tuple(lines))


def costs_table(summaries: Sequence[Summary]) -> Table:
    """Seconds, memory and parameters of each row, all measured."""
    lines = []
    for s in summaries:
        parameters = s.parameters
        cells = (
            f"{s.seconds:,.0f}" if s.seconds is not None else NOT_THERE,
            f"{s.peak_memory / 2**30:.2f}" if s.peak_memory is not None else NOT_THERE,
            f"{parameters.total / 1e6:.2f}" if parameters else NOT_THERE,
            f"{parameters.trained / 1e6:.2f}" if parameters else NOT_THERE,
        )
        lines.append(Line(MEASURED, (s.title, *cells)))
    header = ("row", "training, seconds", "peak memory, GiB", "parameters, millions", "of these trained")
    return Table(header, tuple(lines))


def signed(value: float) -> str:
    """Two digits behind the point and always a sign."""
    return f"{value:+.2f}".replace("-", "−")


def _line(kind: str, title: str, seeds: str, figures: dict[str, str], rest: list[str]) -> Line:
    return Line(kind, (title, kind, seeds, *(figures.get(name, NOT_THERE) for name in FIGURES), *rest))


def _measured(summary: Summary) -> dict[str, str]:
    if summary.means is None:
        return {}
    spreads = summary.spreads or {}
    return {
        name: f"{value:.2f}" + (f" ± {spreads[name]:.2f}" if name in spreads else "")
        for name, value in summary.means.items()
    }


def _interval(summary: Summary) -> str:
    if summary.interval is None:
        return "no ranks: no interval" if summary.runs else "missing"
    return f"[{summary.interval[0]:.2f}, {summary.interval[1]:.2f}]"


def _paired(study: Study, summary: Summary) -> str:
    if summary.name == study.compare_to:
        return ""
    if summary.paired is None:
        return NOT_THERE
    p = summary.paired
    verdict = "excludes 0" if p.excludes_zero else "includes 0"
    some = "" if len(p.seeds) == len(summary.runs) else f" (seed {', '.join(map(str, p.seeds))})"
    return f"{signed(p.difference)} [{signed(p.low)}, {signed(p.high)}], {verdict}{some}"


def _meaning(study: Study, summaries: Sequence[Summary]) -> list[str]:
    notes = [
        "±, over seeds: the sample standard deviation of a row trained again with other random numbers; 'seeds' says "
        "how many there are, and a single one has none.",
        f"[low, high], over test pictures: a bootstrap {PERCENT} % interval of the mean ({DRAWS:,} draws of pictures "
        "with their captions, the mean over seeds in each draw, ranks among the whole test set); it says nothing of "
        "other seeds.",
    ]
    if study.compare_to:
        notes.append(
            f"The difference to {study.title_of(study.compare_to)} is paired: both rows are counted on the same drawn "
            "pictures, and with the seeds that both have. Where its interval excludes 0, other test pictures would "
            "hardly turn it; other seeds may."
        )
    if any(summary.published for summary in summaries):
        notes.append("Lines 'measured' were measured here; lines 'published' are figures of others, not measured here.")
    return notes


def _sources(summaries: Sequence[Summary]) -> list[str]:
    rows_of: dict[str, list[str]] = {}
    for summary in summaries:
        if summary.source:
            rows_of.setdefault(summary.source, []).append(summary.title)
    return [f"Published ({'; '.join(rows)}): {source}" for source, rows in rows_of.items()]
