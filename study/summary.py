"""Finished runs -> what a table says of each row: means over seeds, intervals, differences, costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from study.bootstrap import interval, r_means, resampled_pictures
from study.plan import FIGURES, Study
from study.results import Finished, Parameters


@dataclass(frozen=True)
class Paired:
    """A row's r_mean less that of the row it is compared to, on the same pictures and with the same seeds."""

    seeds: tuple[int, ...]  # those that both rows have
    difference: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Summary:
    """A row of a table, a study's or a released checkpoint: measured (None: nothing finished) and published."""

    name: str
    title: str
    means: Mapping[str, float] | None
    published: Mapping[str, float]
    source: str | None
    comparable: bool = True  # whether measured and published are, as far as is known, on a test set of one size
    runs: tuple[Finished, ...] = ()
    missing: tuple[int, ...] = ()  # seeds that were asked for and have no result
    spreads: Mapping[str, float] | None = None  # sample standard deviation over seeds, of two or more
    interval: tuple[float, float] | None = None  # of r_mean; None where a run has no ranks
    paired: Paired | None = None

    @property
    def differences(self) -> dict[str, float]:
        """Measured less published; empty where they cannot be compared."""
        if self.means is None or not self.comparable:
            return {}
        return {name: self.means[name] - value for name, value in self.published.items()}

    @property
    def seconds(self) -> float | None:
        """Of training, mean over seeds."""
        known = [run.figures.train_seconds for run in self.runs if run.figures.train_seconds is not None]
        return mean(known) if known and len(known) == len(self.runs) else None

    @property
    def peak_memory(self) -> int | None:
        """Bytes, the highest of the seeds."""
        return max((run.figures.peak_memory_bytes or 0 for run in self.runs), default=0) or None

    @property
    def parameters(self) -> Parameters | None:
        """Of the first seed's model; a row's models are alike."""
        return self.runs[0].figures.parameters if self.runs else None


def summarise(study: Study, runs: Mapping[str, Sequence[Finished]], seeds: Sequence[int]) -> list[Summary]:
    """A summary of each row of the study, in its order; `seeds` are those that should be finished."""
    drawn = _draws(runs)
    summaries = []
    for name, row in study.rows.items():
        of_row = tuple(runs[name])
        figures = {key: [getattr(run.figures, key) for run in of_row] for key in FIGURES}
        of_reference = runs[study.compare_to] if study.compare_to and name != study.compare_to else ()
        summaries.append(
            Summary(
                name=name,
                title=study.title_of(name),
                means={key: mean(values) for key, values in figures.items()} if of_row else None,
                published=row.published.figures if row.published else {},
                source=row.source,
                comparable=all(study.published_pictures in (None, run.figures.pictures) for run in of_row),
                runs=of_row,
                missing=tuple(seed for seed in seeds if seed not in {run.seed for run in of_row}),
                spreads={key: stdev(values) for key, values in figures.items()} if len(of_row) > 1 else None,
                interval=_interval(of_row, drawn),
                paired=_paired(of_row, of_reference, drawn),
            )
        )
    return summaries


def _interval(of_row: Sequence[Finished], drawn: Mapping[Path, np.ndarray]) -> tuple[float, float] | None:
    """Of the mean over seeds; None where nothing is finished, or a run has no ranks."""
    if not of_row or not all(run.folder in drawn for run in of_row):
        return None
    return interval(np.mean([drawn[run.folder] for run in of_row], axis=0))


def _paired(
    of_row: Sequence[Finished], of_reference: Sequence[Finished], drawn: Mapping[Path, np.ndarray]
) -> Paired | None:
    """The difference over the seeds that both have; None where there is none, or a run of these has no ranks."""
    reference_of = {run.seed: run for run in of_reference}
    pairs = [(run, reference_of[run.seed]) for run in of_row if run.seed in reference_of]
    if not pairs or not all(run.folder in drawn for pair in pairs for run in pair):
        return None
    draws = np.mean([drawn[run.folder] - drawn[reference.folder] for run, reference in pairs], axis=0)  # [draws]
    difference = mean(run.figures.r_mean - reference.figures.r_mean for run, reference in pairs)
    return Paired(tuple(run.seed for run, _ in pairs), difference, *interval(draws))


def _draws(runs: Mapping[str, Sequence[Finished]]) -> dict[Path, np.ndarray]:
    """By folder, r_mean of each draw of pictures `[draws]`, of every run that has ranks."""
    ranks_of = {run.folder: run.ranks for of_row in runs.values() for run in of_row if run.ranks is not None}
    if not ranks_of:
        return {}
    pictures = len(next(iter(ranks_of.values())).images)
    weights = resampled_pictures(pictures)  # one test set, so the same pictures for every run
    return {folder: r_means(weights, ranks) for folder, ranks in ranks_of.items()}
