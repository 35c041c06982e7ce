"""The nearest vectors of a Lance table: by looking at all, or approximately where there are many."""

from typing import Any

import numpy as np
import pyarrow as pa
from lancedb.index import IvfPq
from numpy import ndarray

ANN_ROWS = 50_000  # from here on looking at all takes too long
# Random vectors have no clusters: nothing is gained by leaving partitions out. What makes the search quick is that two
# numbers of a vector become a code of 4 bits, of which processors look up many at once; the vectors of the best by
# their codes are then looked at.
ROWS_A_PARTITION = 20_000
PROBED = 1000  # partitions: all, up to 20 million rows
REFINED = 500  # vectors looked at
HELD = 200  # vectors to measure recall with
AT = 10
LEAST_RECALL = 0.95
ROUNDING = 1e-5  # of a score


def matrix(table: pa.Table) -> ndarray:
    """The column `vector` as float32 `[N, D]`."""
    column = table["vector"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size)


def nearest(
    table: Any,
    vector: ndarray,
    top: int,
    columns: list[str],
    *,
    where: str | None = None,
    exact: bool = False,
) -> pa.Table:
    """See `Index.nearest`."""
    search = table.search(vector.astype(np.float32), vector_column_name="vector").distance_type("dot").limit(top)
    search = search.bypass_vector_index() if exact else search.nprobes(PROBED).refine_factor(max(2, REFINED // top))
    if where:
        search = search.where(where, prefilter=True)
    found = search.select([*columns, "_distance"]).to_arrow()
    scores = 1 - found["_distance"].to_numpy()
    return found.drop_columns("_distance").append_column("score", pa.array(scores, pa.float32()))


def prepare(table: Any) -> float | None:
    """Give a large table an approximate search, or keep the one it has while that is good; a small one is to have none.

    Its recall; None where search is exact. The table has been optimised, its approximate search covers all rows.
    """
    dim, rows, built = table.schema.field("vector").type.list_size, table.count_rows(), table.list_indices()
    if rows < ANN_ROWS or dim % 4:  # of which Lance packs no codes of 4 bits
        for index in built:
            table.drop_index(index.name)
        return None
    if built and (measured := recall(table)) >= LEAST_RECALL:
        return measured
    partitions = max(1, rows // ROWS_A_PARTITION)
    codes = IvfPq(distance_type="dot", num_partitions=partitions, num_sub_vectors=dim // 2, num_bits=4)
    table.create_index("vector", config=codes)
    return recall(table)


def recall(table: Any) -> float:
    """Recall at 10 against exact search, over rows spread evenly through the table, each looking for the others.

    By scores: of rows that are alike any may be found.
    """
    rows = table.count_rows()
    offsets = np.linspace(0, rows - 1, min(HELD, rows), dtype=int).tolist()
    held = matrix(table.take_offsets(offsets).to_arrow())  # [H, D]
    shared = 0
    for vector, best in zip(held, _best_scores(table, held), strict=True):
        scores = nearest(table, vector, AT + 1, ["path"])["score"].to_numpy()
        shared += max(0, int((scores >= best[-1] - ROUNDING).sum()) - 1)  # without the row itself
    return shared / (AT * len(held))


def _best_scores(table: Any, held: ndarray) -> ndarray:
    """The `AT` + 1 best scores of each vector `[H, D]`, best first, in one walk through the table."""
    best = np.empty((len(held), 0), np.float32)
    for batch in table.search().select(["vector"]).to_batches():
        scores = np.concatenate([best, held @ matrix(pa.Table.from_batches([batch])).T], axis=1)
        best = -np.sort(-scores, axis=1)[:, : AT + 1]
    return best
