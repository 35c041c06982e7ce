"""What is finished of a study -> its tables and figures, written to the folder of the runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from study.notes import notes_of
from study.page import Page, write_page
from study.plan import PlannedRow, Study
from study.results import Finished, finished_runs
from study.summary import Summary, summarise
from study.tables import costs_table, figures_table, values_of
from study.test_sets import check_same_test_set
from utils.output import open_output


def read_finished(study: Study, rows: Mapping[str, PlannedRow], output_dir: Path) -> dict[str, list[Finished]]:
    """The finished runs of every row, whatever seeds: all that the tables and figures are made from, checked.

    Raises InputError for a damaged result and for test sets that cannot be compared.
    """
    runs = {name: finished_runs(output_dir, row, embeddings=name in study.tsne) for name, row in rows.items()}
    check_same_test_set(runs)
    return runs


def collect(
    study: Study,
    runs: Mapping[str, Sequence[Finished]],
    seeds: Sequence[int],
    output_dir: Path,
    commands: Sequence[str],
) -> list[Summary]:
    """Write the tables and figures of all rows; return the summaries.

    seeds: those that should be finished; commands: what the runs are made with.
    """
    from study.plots import draw_curve, draw_map, draw_rows  # brings matplotlib, which --help has no use for

    summaries = summarise(study, runs, seeds)
    open_output(output_dir)
    embedded = {study.title_of(row): [run.embedded for run in runs[row] if run.embedded] for row in study.tsne}
    mapped = {title: of_row[0] for title, of_row in embedded.items() if of_row}
    rows, curve, scenes = (output_dir / name for name in ("r_mean.png", "curve.png", "tsne.png"))
    drawn = {
        rows: draw_rows(rows, summaries, study.title),
        curve: draw_curve(curve, study.curve, summaries, study.title),
        scenes: draw_map(scenes, mapped, f"{study.title}: t-SNE of test embeddings"),
    }
    for picture, is_drawn in drawn.items():
        if not is_drawn:
            picture.unlink(missing_ok=True)  # of an earlier state, which the tables no longer show
    page = Page(
        title=study.title,
        tables=(figures_table(study, summaries), costs_table(summaries)),
        values=values_of(summaries),
        notes=notes_of(study, summaries),
        commands=commands,
        pictures=[picture for picture, is_drawn in drawn.items() if is_drawn],
        about=study.notes or "",
    )
    write_page(output_dir, "table", page)
    return summaries
