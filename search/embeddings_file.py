"""`Search.py embed`: embeddings of pictures in one file, for other programs, NumPy's `.npz` or Parquet."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy import ndarray

from search.columns import WINDOW
from search.embedding import embedded_tiles
from search.files import find_files
from search.model import checksum_of, chosen_model, loaded_model
from search.reading import TileOf
from search.settings import settings_of
from utils.files import written_whole
from utils.logs import say


def embed_to_file(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Write `--output`; the files that cannot be read, each with what is wrong with it."""
    settings = settings_of(args)
    model = chosen_model(args.checkpoint)
    found = find_files(args.images)
    if found.left_out:
        say(found.left_out)
    embedder = loaded_model(model, args.device, average_orientations=settings.average_orientations)
    tiles: list[TileOf] = []
    vectors = [np.empty((0, embedder.config.embed_dim), np.float32)]
    broken = list(found.problems)
    for batch, embedded in embedded_tiles(embedder, found.files, settings, args.num_workers):
        vectors.append(embedded)
        tiles += batch.tiles
        broken += [(done.file.path, done.error) for done in batch.done if done.error]
    write_embeddings(args.output, tiles, np.concatenate(vectors), checksum_of(model))
    say(f"{args.output}: {len(tiles)} embeddings of {embedder.config.embed_dim} numbers")
    return broken


def write_embeddings(file: Path, tiles: Sequence[TileOf], vectors: ndarray, model: str) -> None:
    """Write paths, windows and unit vectors `[N, D]`, whole or not at all.

    `.npz`: `path` `[N]`, `window` `[N, 4]` (column, row, width, height), `embedding` `[N, D]`, `weights_sha256`;
    `.parquet`: a row a tile, the model in the schema's metadata. model: SHA-256 of its weights.
    """
    paths = [tile.file.path for tile in tiles]
    windows = np.array([tile.tile.window for tile in tiles], np.int32).reshape(-1, 4)
    with written_whole(file) as temporary, temporary.open("wb") as stream:
        if file.suffix == ".npz":
            np.savez(stream, path=np.array(paths), window=windows, embedding=vectors, weights_sha256=np.array(model))
            return
        columns = {"path": pa.array(paths, pa.string())}
        columns |= {name: pa.array(windows[:, i]) for i, name in enumerate(WINDOW)}
        flat = pa.array(vectors.ravel(), pa.float32())
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        table = pa.table(columns).replace_schema_metadata({"weights_sha256": model})
        pq.write_table(table, stream)
