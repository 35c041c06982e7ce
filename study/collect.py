"""What is finished of a study -> its tables and figures, written beside the runs."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from study.embedding_map import Embedded, draw_map, read_embeddings
from study.figures import draw_curve, draw_rows
from study.plan import PlannedRow, Study
from study.results import Finished, finished_runs
from study.summary import Summary, summarise
from study.tables import page_of
from study.test_sets import check_same_test_set
from study.writers import write_page
from utils.output import EMBEDDINGS, open_output

ROWS_PICTURE, CURVE_PICTURE, MAP_PICTURE = "r_mean.png", "curve.png", "tsne.png"


@dataclass(frozen=True)
class Found:
    """What is finished of a study."""

    runs: Mapping[str, Sequence[Finished]]  # of every row, whatever seeds
    embedded: Mapping[str, Embedded]  # by title, of the rows of the map that have embeddings


def read_finished(study: Study, rows: Mapping[str, PlannedRow], output_dir: Path) -> Found:
    """Read and check all that the tables and figures of the rows are made from.

    Raises InputError for a damaged result and for test sets that cannot be compared.
    """
    runs = {name: finished_runs(output_dir, row) for name, row in rows.items()}
    check_same_test_set(runs)
    return Found(runs, _embeddings(study, runs))


def collect(
    study: Study, found: Found, seeds: Sequence[int], output_dir: Path, commands: Sequence[str]
) -> list[Summary]:
    """Write the tables and figures of all rows from what was found; return the summaries.

    seeds: those that should be there; commands: what the runs are made with.
    """
    runs, embedded = found.runs, found.embedded
    summaries = summarise(study, runs, seeds)
    open_output(output_dir)
    remarks = [*_test_set(runs), *_batches(runs), *_missing(summaries), *_differing(summaries)]
    if any(s.published and not s.comparable for s in summaries):
        remarks.append(
            f"The published figures are on {study.published_pictures:,} test pictures: no difference is taken to those "
            "measured here on another number."
        )

    drawn = {ROWS_PICTURE: draw_rows(output_dir / ROWS_PICTURE, summaries, study.title)}
    if study.curve:
        title = f"{study.title}: {study.curve.key}"
        drawn[CURVE_PICTURE] = draw_curve(output_dir / CURVE_PICTURE, study.curve, summaries, title)
    if study.tsne:
        absent = [study.title_of(row) for row in study.tsne if study.title_of(row) not in embedded]
        if absent:
            remarks.append(f"No t-SNE map yet of {', '.join(absent)}: no finished run with {EMBEDDINGS}.")
        if embedded:
            draw_map(output_dir / MAP_PICTURE, embedded, f"{study.title}: t-SNE of test embeddings")
        drawn[MAP_PICTURE] = bool(embedded)
    for name in (ROWS_PICTURE, CURVE_PICTURE, MAP_PICTURE):
        if not drawn.get(name):
            (output_dir / name).unlink(missing_ok=True)  # of an earlier state, which the tables no longer show
    pictures = [output_dir / name for name, there in drawn.items() if there]
    write_page(output_dir, page_of(study, summaries, remarks, commands), summaries, pictures)
    return summaries


def shown_command(program: str, arguments: Sequence[str]) -> str:
    """A command as a reader types it in the repository's root."""
    return shlex.join(["python", program, *arguments])


def _embeddings(study: Study, runs: Mapping[str, Sequence[Finished]]) -> dict[str, Embedded]:
    """By title, of each row of the map the first finished run that has embeddings."""
    found = {}
    for row in study.tsne:
        files = [run.folder / EMBEDDINGS for run in runs[row] if (run.folder / EMBEDDINGS).exists()]
        if files:
            found[study.title_of(row)] = read_embeddings(files[0])
    return found


def _test_set(runs: Mapping[str, Sequence[Finished]]) -> list[str]:
    first = next((run.figures for of_row in runs.values() for run in of_row), None)
    if first is None:
        return []
    return [f"Measured on {first.pictures:,} test pictures with {first.captions:,} captions ({first.test_file})."]


def _batches(runs: Mapping[str, Sequence[Finished]]) -> list[str]:
    """How many processes and what batch, one line where all are alike, otherwise one for each way."""
    rows_of: dict[str, dict[str, None]] = {}
    for name, of_row in runs.items():
        for run in of_row:
            f = run.figures
            way = f"{f.processes} process{'es' if f.processes > 1 else ''}, batch of {f.batch_size} over all"
            rows_of.setdefault(way, {})[name] = None
    if len(rows_of) == 1:
        return [f"All runs: {next(iter(rows_of))}."]
    return [f"Runs of {', '.join(rows)}: {way}." for way, rows in rows_of.items()]


def _missing(summaries: Sequence[Summary]) -> list[str]:
    return [
        f"{s.title}: missing, no result with seed {', '.join(map(str, s.missing))} yet." for s in summaries if s.missing
    ]


def _differing(summaries: Sequence[Summary]) -> list[str]:
    return [
        f"{s.title} seed {run.seed} was run with a config that differs from the study's in {', '.join(run.differing)}."
        for s in summaries
        for run in s.runs
        if run.differing
    ]
