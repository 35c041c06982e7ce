"""What an evaluation leaves for tables and figures: each query's rank and the embeddings.

Compressed arrays without pickles, written whole or not at all; `np.load(file, allow_pickle=False)` reads them.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from utils.files import write_whole
from utils.output import EMBEDDINGS, RANKS


class Measured(NamedTuple):
    """An evaluation: the seven figures, and the ranks and embeddings they come from."""

    figures: dict[str, float]
    text_rank: Tensor  # [I], image to text: a picture's best rank over its own captions, from 0
    image_rank: Tensor  # [T], text to image: the rank of a caption's picture, from 0
    image_embeds: Tensor  # [I, D]
    text_embeds: Tensor  # [T, D]


def write_arrays(
    folder: Path,
    measured: Measured,
    *,
    own_image_of_text: Sequence[int],
    names: Sequence[str],
    labels: Sequence[int] | None,
    label_names: Sequence[str] | None,
) -> None:
    """Write `ranks.npz` and `embeddings.npz`, the embeddings in half precision.

    own_image_of_text: T picture numbers; names: the I pictures as the annotation file names them; labels and
    label_names: their I scenes, where they are known.
    """
    pictures = {"own_image_of_text": np.array(own_image_of_text, np.int32), "images": np.array(names, np.str_)}
    ranks = {"image_to_text": measured.text_rank, "text_to_image": measured.image_rank}
    embeds = {"image_embeds": measured.image_embeds, "text_embeds": measured.text_embeds}
    scenes = {}
    if labels is not None:
        scenes["label"] = np.array(labels, np.int32 if max(map(abs, labels)) < 2**31 else np.int64)
    if label_names is not None:
        scenes["label_name"] = np.array(label_names, np.str_)
    as_numbers = {name: values.cpu().numpy().astype(np.int32) for name, values in ranks.items()}
    halved = {name: values.cpu().half().numpy() for name, values in embeds.items()}
    write_whole(folder / RANKS, _compressed(as_numbers | pictures))
    write_whole(folder / EMBEDDINGS, _compressed(halved | pictures | scenes))


def _compressed(arrays: dict[str, np.ndarray]) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()
