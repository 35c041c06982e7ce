"""Finished runs -> what a table says of each row: means over seeds, intervals, differences, costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np

from study.bootstrap import interval, r_means, resampled_pictures
from study.plan import FIGURES, Study
from study.results import Finished, Parameters


@dataclass(frozen=True)
class Paired:
    """A row's r_mean less that of the row it is compared to, on the same pictures."""

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
        draws, reference = drawn.get(name), drawn.get(study.compare_to or "")
        pictures = {run.figures.pictures for run in of_row}
        paired = None
        if draws is not None and reference is not None and name != study.compare_to:
            reference_mean = mean(run.figures.r_mean for run in runs[study.compare_to])
            paired = Paired(means["r_mean"] - reference_mean, *interval(draws - reference))
        summaries.append(
            Summary(
                name=name,
                title=study.title_of(name),
                runs=of_row,
                missing=tuple(seed for seed in seeds if seed not in {run.seed for run in of_row}),
                means=means,
                spreads={key: stdev(values) for key, values in figures.items()} if len(of_row) > 1 else None,
                interval=interval(draws) if draws is not None else None,
                paired=paired,
                published=row.published.figures if row.published else {},
                source=row.source,
                comparable=study.published_pictures is None or pictures <= {study.published_pictures},
            )
        )
    return summaries


def _draws(runs: Mapping[str, Sequence[Finished]]) -> dict[str, np.ndarray]:
    """r_mean of each draw, averaged over a row's seeds, of the rows whose runs all have ranks: `[draws]`."""
    drawn: dict[str, np.ndarray] = {}
    weights = None
    for name, of_row in runs.items():
        if of_row and all(run.ranks is not None for run in of_row):
            if weights is None:  # one test set, so the same pictures for every row
                weights = resampled_pictures(of_row[0].figures.pictures)
            drawn[name] = np.mean([r_means(weights, run.ranks) for run in of_row], axis=0)
    return drawn
