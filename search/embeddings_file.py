"""Embeddings of pictures in one file, for other programs: NumPy's `.npz` or Parquet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy import ndarray

from search.columns import WINDOW
from search.reading import TileOf
from utils.files import written_whole


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
