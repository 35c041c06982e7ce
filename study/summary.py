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
    """A row: measured (None where nothing is finished) and published."""

    name: str
    title: str
    runs: tuple[Finished, ...]
    missing: tuple[int, ...]  # seeds that were asked for and have no result
    means: dict[str, float] | None
    spreads: dict[str, float] | None  # sample standard deviation over seeds, of two or more
    interval: tuple[float, float] | None  # of r_mean; None where a run has no ranks
    paired: Paired | None
    published: dict[str, float]
    source: str | None
    comparable: bool  # whether measured and published are, as far as the study says, on a test set of one size

    @property
    def differences(self) -> dict[str, float]:
        """Measured less published; empty where they cannot be compared."""
        comparable = self.means and self.comparable
        return {name: self.means[name] - value for name, value in self.published.items()} if comparable else {}

    @property
    def seconds(self) -> float | None:
        """Of training, mean over seeds."""
        known = [run.figures.train_seconds for run in self.runs]
        return mean(known) if known and None not in known else None

    @property
    def peak_memory(self) -> int | None:
        """Bytes, the highest of the seeds."""
        return max((run.figures.peak_memory_bytes or 0 for run in self.runs), default=0) or None

    @property
    def parameters(self) -> Parameters | None:
        """Of the first seed's model; a row's models are alike."""
        return self.runs[0].figures.parameters if self.runs else None


def summarise(study: Study, runs: Mapping[str, Sequence[Finished]], seeds: Sequence[int]) -> list[Summary]:
    """A summary of each row of the study, in its order; `seeds` are those that should be there."""
    drawn = _draws(runs)
    summaries = []
    for name, row in study.rows.items():
        of_row = tuple(runs[name])
        figures = {key: [getattr(run.figures, key) for run in of_row] for key in FIGURES}
        means = {key: mean(values) for key, values in figures.items()} if of_row else None
        pictures = {run.figures.pictures for run in of_row}
        of_reference = runs[study.compare_to] if study.compare_to and name != study.compare_to else ()
        summaries.append(
            Summary(
                name=name,
                title=study.title_of(name),
                runs=of_row,
                missing=tuple(seed for seed in seeds if seed not in {run.seed for run in of_row}),
                means=means,
                spreads={key: stdev(values) for key, values in figures.items()} if len(of_row) > 1 else None,
                interval=_interval(of_row, drawn),
                paired=_paired(of_row, of_reference, drawn),
                published=row.published.figures if row.published else {},
                source=row.source,
                comparable=study.published_pictures is None or pictures <= {study.published_pictures},
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
    with_ranks = [run for of_row in runs.values() for run in of_row if run.ranks is not None]
    if not with_ranks:
        return {}
    weights = resampled_pictures(with_ranks[0].figures.pictures)  # one test set, so the same pictures for every run
    return {run.folder: r_means(weights, run.ranks) for run in with_ranks}
