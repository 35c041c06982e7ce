"""Tiles read ahead of the model, by a loader's workers: files -> batches of transformed pictures."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from dataset.pictures import PictureRule
from dataset.transforms import Transform
from search.items import PictureFile, Tile, Tiling, Window
from search.opening import open_picture
from utils.errors import InputError
from utils.machine_limits import allow_open_files

SHARED_BYTES = 64 * 2**20


def is_shared(file: PictureFile) -> bool:
    """Whether a file is so large that all readers take a part of its tiles; a smaller one is one reader's."""
    return file.size >= SHARED_BYTES


class TileOf(NamedTuple):
    """A tile, of which file, and when that picture was taken."""

    file: PictureFile
    tile: Tile
    taken: datetime | None


class Done(NamedTuple):
    """What one reader made of a file, or of its share of a large one."""

    file: PictureFile
    rows: int  # tiles in the index, those that an earlier run left there among them
    empty: int  # tiles without data
    error: str | None = None
    remarks: tuple[str, ...] = ()  # on what was not as asked


class TileBatch(NamedTuple):
    """Tiles of one file or several, and the files that the reader has finished with them."""

    images: Tensor  # uint8 [b, 3, S, S], b may be 0 at the end
    tiles: list[TileOf]  # b
    done: list[Done]


class TileReader(IterableDataset):
    """This process's share of the tiles of `files`, shared out again among the loader's workers."""

    def __init__(
        self,
        files: Sequence[PictureFile],
        *,
        tiling: Tiling,
        rule: PictureRule,
        transform: Transform,
        batch_size: int,
        present: Mapping[str, set[Window]] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """present: by path, the windows that an interrupted run has left in the index."""
        self.files, self.tiling, self.rule, self.transform = files, tiling, rule, transform
        self.batch_size, self.present, self.rank, self.world_size = batch_size, present or {}, rank, world_size

    def __iter__(self) -> Iterator[TileBatch]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        readers, reader = self.world_size * workers, self.rank * workers + number
        images: list[Tensor] = []
        tiles: list[TileOf] = []
        done: list[Done] = []
        for position, file in enumerate(self.files):
            shared = is_shared(file)
            if not shared and position % readers != reader:
                continue
            present = self.present.get(file.path, set())
            rows = empty = 0
            error, remarks = None, list[str]()
            try:
                with open_picture(file, self.tiling, self.rule) as picture:
                    remarks = picture.remarks
                    for tile in picture.tiles[reader::readers] if shared else picture.tiles:
                        pixels = None if tile.window in present else picture.read(tile)
                        if pixels is None:
                            rows, empty = rows + (tile.window in present), empty + (tile.window not in present)
                            continue
                        images.append(self.transform(pixels))
                        tiles.append(TileOf(file, tile, picture.taken))
                        rows += 1
                        if len(images) == self.batch_size:
                            yield TileBatch(torch.stack(images), tiles, done)
                            images, tiles, done = [], [], []
            except InputError as problem:
                error = str(problem)
            done.append(Done(file, rows, empty, error, tuple(remarks)))
        yield TileBatch(torch.stack(images) if images else torch.empty(0), tiles, done)


def tile_loader(reader: TileReader, num_workers: int, *, pin_memory: bool = False) -> DataLoader:
    """A loader whose items are the reader's `TileBatch`es."""
    allow_open_files(num_workers)
    # Forked from here a worker would inherit the database's threads in the middle of their work.
    context = "forkserver" if num_workers else None
    return DataLoader(
        reader, batch_size=None, num_workers=num_workers, pin_memory=pin_memory, multiprocessing_context=context
    )
