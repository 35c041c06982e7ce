"""What a reader of a study's tables must know: what its marks mean, how it was measured, what is missing."""

from collections.abc import Sequence

from study.bootstrap import DRAWS, PERCENT
from study.plan import Study
from study.summary import Summary
from utils.output import EMBEDDINGS


def notes_of(study: Study, summaries: Sequence[Summary]) -> list[str]:
    """A sentence or two each: on what the tables' marks mean, then on these runs, then the sources."""
    return [*_meaning(study, summaries), *_of_runs(study, summaries), *_sources(summaries)]


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
    if any(s.published for s in summaries):
        notes.append("Lines 'measured' were measured here; lines 'published' are figures of others, not measured here.")
    return notes


def _of_runs(study: Study, summaries: Sequence[Summary]) -> list[str]:
    runs = [(s, run) for s in summaries for run in s.runs]
    notes = []
    if runs:
        f = runs[0][1].figures
        notes.append(f"Measured on {f.pictures:,} test pictures with {f.captions:,} captions ({f.test_file}).")
    rows_of: dict[str, dict[str, None]] = {}  # by how many processes and what batch
    for s, run in runs:
        f = run.figures
        way = f"{f.processes} process{'es' if f.processes > 1 else ''}, batch of {f.batch_size} over all"
        rows_of.setdefault(way, {})[s.name] = None
    for way, rows in rows_of.items():
        notes.append(f"All runs: {way}." if len(rows_of) == 1 else f"Runs of {', '.join(rows)}: {way}.")
    notes += [
        f"{s.title}: missing, no result with seed {', '.join(map(str, s.missing))} yet." for s in summaries if s.missing
    ]
    notes += [
        f"{s.title} seed {run.seed} was run with a config that differs from the study's in {', '.join(run.differing)}."
        for s, run in runs
        if run.differing
    ]
    if any(s.published and not s.comparable for s in summaries):
        notes.append(
            f"The published figures are on {study.published_pictures:,} test pictures: no difference is taken to those "
            "measured here on another number."
        )
    unmapped = [s.title for s in summaries if s.name in study.tsne and not any(run.embedded for run in s.runs)]
    if unmapped:
        notes.append(f"No t-SNE map yet of {', '.join(unmapped)}: no finished run with {EMBEDDINGS}.")
    return notes


def _sources(summaries: Sequence[Summary]) -> list[str]:
    rows_of: dict[str, list[str]] = {}
    for s in summaries:
        if s.source:
            rows_of.setdefault(s.source, []).append(s.title)
    return [f"Published ({'; '.join(rows)}): {source}" for source, rows in rows_of.items()]
