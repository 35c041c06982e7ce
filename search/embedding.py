"""Picture files to embeddings: tiles are read ahead, embedded in batches, and the progress shown."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
from numpy import ndarray

from dataset.transforms import evaluation_transform
from models.embedder import Embedder
from search.items import PictureFile, Window
from search.opening import open_picture
from search.reading import TileBatch, TileReader, is_shared, tile_loader
from search.settings import Settings
from utils import processes
from utils.errors import InputError
from utils.logs import progress

CPU_BATCH = 16  # pictures at once on a CPU, which gains nothing from more; each takes memory


def embedded_tiles(
    embedder: Embedder,
    files: Sequence[PictureFile],
    settings: Settings,
    num_workers: int | None = None,
    present: Mapping[str, set[Window]] | None = None,
) -> Iterator[tuple[TileBatch, ndarray]]:
    """This process's share of the tiles of `files` in batches, with their unit embeddings `[b, D]`.

    present: by path, the windows that are not wanted again.
    """
    c, on_card = embedder.config, embedder.device.type == "cuda"
    reader = TileReader(
        files,
        tiling=settings.tiling,
        rule=settings.rule,
        transform=evaluation_transform(c.image_res),
        batch_size=c.batch_size_test if on_card else min(c.batch_size_test, CPU_BATCH),
        present=present or {},
        rank=processes.rank(),
        world_size=processes.world_size(),
    )
    loader = tile_loader(reader, _workers(num_workers, on_card), pin_memory=on_card)
    for batch in progress(loader, _total(files, settings), "embedding pictures", counts=_units):
        none = np.empty((0, c.embed_dim), np.float32)
        yield batch, embedder.embed_pixels(batch.images) if batch.tiles else none


def _units(batch: TileBatch) -> int:
    """What a batch counts in the progress: small files that are finished, and tiles of large ones."""
    tiles = sum(is_shared(of.file) for of in batch.tiles)
    return tiles + sum(done.empty if is_shared(done.file) else 1 for done in batch.done)


def _total(files: Sequence[PictureFile], settings: Settings) -> int:
    """How many of `_units` there will be for this process, about."""
    share, tiles = processes.world_size(), 0
    large = [file for file in files if is_shared(file)]
    for file in large:
        with suppress(InputError), open_picture(file, settings.tiling, settings.rule) as picture:
            tiles += len(picture.tiles)
    return math.ceil((len(files) - len(large)) / share) + math.ceil(tiles / share)


def _workers(given: int | None, on_card: bool) -> int:
    """How many processes read pictures for each that embeds: as given, or the cores that are left, 8 at most.

    On a CPU the model has the first two cores of its share, and reads for itself: reading takes a fiftieth of embedding
    there, a process that reads takes seconds to start and keeps two cores from working in step.
    """
    if given is not None:
        return given
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cores // processes.world_size()
    return min(8, max(1, share - 1) if on_card else max(0, share - 2))
