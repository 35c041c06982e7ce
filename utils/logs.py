"""What a run says of itself: progress, printed lines, log.txt, result files, TensorBoard curves, running means."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Generic, TypeVar

from torch import Tensor
from tqdm import tqdm

from utils import processes
from utils.files import write_whole

T = TypeVar("T")
_BAR_SECONDS = 0.2  # between two looks at the figures, which may wait for the GPU


class progress(Generic[T]):  # lower-case as tqdm is: it reads as a function in `for x in progress(...)`
    """Iterate over `iterable` and show how far it is, on stderr and from rank 0 alone.

    A terminal gets tqdm's bar; anything else a plain line every `every_seconds` and one at the end, with
    done/total, the elapsed and the estimated remaining time. from_first: show the first item too, once it is done.
    counts: how much of `total` an item is (None: one).
    """

    def __init__(
        self,
        iterable: Iterable[T],
        total: int,
        label: str,
        *,
        every_seconds: float = 15.0,
        from_first: bool = False,
        counts: Callable[[T], int] | None = None,
    ) -> None:
        self.iterable, self.total, self.label, self.every_seconds = iterable, total, label, every_seconds
        self.from_first, self.counts = from_first, counts
        self._figures: dict[str, float | Tensor] = {}

    def show(self, **figures: float | Tensor) -> None:
        """Set the running figures to show along; a tensor is read only when it is shown, so no step waits for it."""
        self._figures = {name: x.detach() if isinstance(x, Tensor) else x for name, x in figures.items()}

    def __iter__(self) -> Iterator[T]:
        if not processes.is_main():
            yield from self.iterable
            return
        terminal = sys.stderr.isatty()
        every = _BAR_SECONDS if terminal else self.every_seconds
        started = shown = monotonic()
        done = 0
        with tqdm(total=self.total, desc=self.label, mininterval=0, miniters=1, disable=not terminal) as bar:
            for number, item in enumerate(self.iterable, 1):
                yield item
                done += self.counts(item) if self.counts else 1
                now = monotonic()
                if now - shown < every and done != self.total and not (number == 1 and self.from_first):
                    continue
                shown = now
                figures = ", ".join(f"{name} {float(x):.4g}" for name, x in self._figures.items())
                if terminal:
                    bar.set_postfix_str(figures, refresh=False)
                    bar.update(done - bar.n)
                else:
                    print(self._line(done, now - started, figures), file=sys.stderr, flush=True)

    def _line(self, done: int, elapsed: float, figures: str) -> str:
        parts = [f"{self.label}: {done}/{self.total}", f"{tqdm.format_interval(elapsed)} elapsed"]
        if 0 < done < self.total:
            parts.append(f"{tqdm.format_interval(elapsed / done * (self.total - done))} left")
        return ", ".join([*parts, figures] if figures else parts)


def say(text: str) -> None:
    """Print a line from rank 0, at once, above any bar of `progress`."""
    if processes.is_main():
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


def append_line(file: Path, values: Mapping[str, Any]) -> None:
    """Append `values` to a log as one JSON line; it is on the disk when this returns."""
    append_text(file, json.dumps(dict(values)) + "\n")


def append_text(file: Path, text: str) -> None:
    """Append text to a log; it is on the disk when this returns."""
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from None  # a full disk's has no name of its own


def write_json(file: Path, values: Any) -> None:
    """Write `values` as JSON, whole or not at all."""
    write_whole(file, (json.dumps(values, indent=2) + "\n").encode())


class Curves:
    """TensorBoard curves in `folder`; with None, on ranks that write nothing, all calls do nothing.

    Points that an earlier, interrupted run left in the folder are hidden from the first added step on.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._writer: Any = None

    def add(self, values: Mapping[str, float], step: int, prefix: str = "") -> None:
        """Add a point at `step` to the curve `prefix + name` of each value."""
        if self.folder is None:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # takes a second, for one rank's use

            self._writer = SummaryWriter(str(self.folder), purge_step=step)
        for name, value in values.items():
            self._writer.add_scalar(prefix + name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> "Curves":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Meters:
    """Running means. Sums of tensors stay on their device, so that no step waits for the GPU."""

    def __init__(self) -> None:
        self._sums: dict[str, float | Tensor] = {}
        self._counts: dict[str, int] = {}

    def update(self, **values: float | Tensor) -> None:
        """Count each value, a number or a tensor `[]`."""
        for name, value in values.items():
            if isinstance(value, Tensor):
                value = value.detach().double()  # bfloat16 or float32 would lose the small ones of many
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """The mean of each value since the start, in order of first appearance."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}
