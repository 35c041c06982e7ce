"""Summaries -> the lines of a study's two tables, and the values for programs."""

from collections.abc import Mapping, Sequence

from study.bootstrap import PERCENT
from study.page import Line, Table
from study.plan import FIGURES, Study
from study.summary import Summary

MEASURED, PUBLISHED, DIFFERENCE = "measured", "published", "measured − published"
MISSING = "–"
HEADINGS = ("I→T R@1", "I→T R@5", "I→T R@10", "T→I R@1", "T→I R@5", "T→I R@10", "mean")


def figures_table(study: Study, summaries: Sequence[Summary]) -> Table:
    """Up to three lines a row: measured, published, and their difference."""
    paired = (f"mean − that of {study.title_of(study.compare_to)}",) if study.compare_to else ()
    header = ("row", "", "seeds", *HEADINGS, f"{PERCENT} % interval of the mean", *paired)
    blank = ("",) * (1 + len(paired))
    lines = []
    for s in summaries:
        rest = (_interval(s), *([_paired(study, s)] if paired else []))
        lines.append(Line((s.title, MEASURED, str(len(s.runs)), *cells(s.means, spreads=s.spreads), *rest)))
        if s.published:
            lines.append(Line((s.title, PUBLISHED, "", *cells(s.published), *blank), italic=True))
        if s.differences:
            lines.append(
                Line((s.title, DIFFERENCE, "", *map(_minus, cells(s.differences, "+.2f")), *blank), italic=True)
            )
    return Table(header, tuple(lines), names=2)


def costs_table(summaries: Sequence[Summary]) -> Table:
    """Seconds, memory and parameters of each row, all measured."""
    lines = []
    for s in summaries:
        memory = s.peak_memory / 2**30 if s.peak_memory is not None else None
        total, trained = (s.parameters.total / 1e6, s.parameters.trained / 1e6) if s.parameters else (None, None)
        costs = _number(s.seconds, ",.0f"), _number(memory), _number(total), _number(trained)
        lines.append(Line((s.title, *costs)))
    header = ("row", "training, seconds", "peak memory, GiB", "parameters, millions", "of these trained")
    return Table(header, tuple(lines))


def cells(
    figures: Mapping[str, float] | None, form: str = ".2f", spreads: Mapping[str, float] | None = None
) -> tuple[str, ...]:
    """A cell for each of the seven figures, `24.46 ± 0.31` where its spread is known."""
    numbers = [_number((figures or {}).get(name), form) for name in FIGURES]
    return tuple(f"{x} ± {spreads[name]:.2f}" if spreads else x for name, x in zip(FIGURES, numbers, strict=True))


def values_of(summaries: Sequence[Summary]) -> list[dict[str, object]]:
    """A line for each row and kind, unrounded, the first with every key; what is missing is None or has no key."""
    lines: list[dict[str, object]] = []
    for s in summaries:
        named = {"row": s.name, "title": s.title}
        lines.append(named | {"kind": MEASURED, **_measured_values(s), "source": None})
        if s.published:
            lines.append(named | {"kind": PUBLISHED, **s.published, "source": s.source})
        if s.differences:
            lines.append(named | {"kind": DIFFERENCE.replace("−", "-"), **s.differences})
    return lines


def _measured_values(s: Summary) -> dict[str, object]:
    paired, parameters = s.paired, s.parameters
    return {
        "seeds": " ".join(str(run.seed) for run in s.runs),
        "missing_seeds": " ".join(map(str, s.missing)),
        **{name: (s.means or {}).get(name) for name in FIGURES},
        **{f"{name}_sd": (s.spreads or {}).get(name) for name in FIGURES},
        **dict(zip(("r_mean_low", "r_mean_high"), s.interval or (None, None), strict=True)),
        **{f"paired_{name}": getattr(paired, name, None) for name in ("difference", "low", "high")},
        "paired_seeds": " ".join(map(str, paired.seeds)) if paired else None,
        "train_seconds": s.seconds,
        "peak_memory_bytes": s.peak_memory,
        "parameters_total": parameters.total if parameters else None,
        "parameters_trained": parameters.trained if parameters else None,
    }


def _number(value: float | None, form: str = ".2f") -> str:
    return MISSING if value is None else f"{value:{form}}"


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _interval(summary: Summary) -> str:
    if summary.interval is None:
        return "no ranks: no interval" if summary.runs else "missing"
    return f"[{summary.interval[0]:.2f}, {summary.interval[1]:.2f}]"


def _paired(study: Study, summary: Summary) -> str:
    if summary.name == study.compare_to:
        return ""
    p = summary.paired
    if p is None:
        return MISSING
    verdict = "excludes 0" if p.excludes_zero else "includes 0"
    some = "" if len(p.seeds) == len(summary.runs) else f" (seed {', '.join(map(str, p.seeds))})"
    return f"{_minus(f'{p.difference:+.2f} [{p.low:+.2f}, {p.high:+.2f}]')}, {verdict}{some}"
