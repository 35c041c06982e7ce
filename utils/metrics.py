"""Ranks and recall of a retrieval (docs/behaviour.md, 6)."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BLOCK = 256  # pictures at most, which are compared at once with the captions of as many


class Measured(NamedTuple):
    """An evaluation: the seven figures, and the ranks and embeddings they come from."""

    figures: dict[str, float]
    text_rank: Tensor  # [I], image to text: a picture's best rank over its own captions, from 0
    image_rank: Tensor  # [T], text to image: the rank of a caption's picture, from 0
    image_embeds: Tensor  # [I, D]
    text_embeds: Tensor  # [T, D]


def text_ranks(scores: Tensor, pictures: Tensor, own_image_of_text: Tensor) -> Tensor:
    """Image to text: the best place of a picture's own captions. scores `[P, T]` of `pictures` `[P]` -> `[P]`."""
    foreign = own_image_of_text[None, :] != pictures[:, None]
    best, caption = scores.masked_fill(foreign, float("-inf")).max(dim=1)
    return _ahead(scores, best, torch.arange(scores.shape[1], device=scores.device), caption)


def image_ranks(scores: Tensor, own_image: Tensor) -> Tensor:
    """Text to image: the place of a caption's picture. scores `[T, I]`, own_image `[T]` -> `[T]`."""
    own = scores.gather(1, own_image[:, None])[:, 0]
    return _ahead(scores, own, torch.arange(scores.shape[1], device=scores.device), own_image)


def retrieval_ranks(
    image_embeds: Tensor, text_embeds: Tensor, own_image_of_text: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Both sides' ranks from embeddings, each similarity computed once, in tiles.

    image_embeds `[I, D]`, text_embeds `[T, D]`, own_image_of_text: each caption's picture number. Returns the text
    ranks `[I]` and the image ranks `[T]`, from 0. Raises ValueError for embeddings that are not finite, which no rank
    can be read from, and for a picture without a caption.
    """
    if not (_is_finite(image_embeds) and _is_finite(text_embeds)):
        raise ValueError("the embeddings are not all finite")
    own, order = _sorted(own_image_of_text, len(image_embeds), len(text_embeds), image_embeds.device)
    texts = text_embeds if (order.diff() == 1).all() else text_embeds[order]
    return _ranks(lambda pictures, captions: image_embeds[pictures] @ texts[captions].T, own, order)


def _is_finite(numbers: Tensor) -> bool:
    """Whether all are; a NaN is the greatest and the least."""
    return bool(torch.stack(numbers.aminmax()).isfinite().all())


def _sorted(own: Sequence[int], pictures: int, captions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Captions' picture numbers in order `[T]`, and which caption each is `[T]`; ValueError where they do not fit."""
    numbers, order = torch.as_tensor(own, device=device).sort(stable=True)
    if len(numbers) != captions or numbers.unique().tolist() != list(range(pictures)) or not pictures:
        raise ValueError(f"{len(numbers)} picture numbers for {captions} captions of {pictures} pictures, all with one")
    return numbers, order


def _ranks(tile: Callable[[slice, slice], Tensor], own: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Ranks `[I]` and `[T]` by counting what is ahead, in tiles of scores `[P, C]` of some pictures and captions.

    tile: of captions that are sorted by their picture; own `[T]`: these pictures; order `[T]`: the captions' numbers.
    """
    pictures = torch.arange(int(own[-1]) + 1, device=own.device)
    # Of about the same size: a matrix product of a row or two is rounded another way, which would split ties.
    firsts = [block[0] for block in pictures.tensor_split(-(-len(pictures) // BLOCK))]
    edges = [*zip(map(int, firsts), torch.searchsorted(own, torch.stack(firsts)).tolist(), strict=True)]
    blocks = [(slice(p, q), slice(c, d)) for (p, c), (q, d) in pairwise([*edges, (len(pictures), len(own))])]
    text_rank, image_rank = torch.zeros_like(pictures), torch.zeros_like(own)

    def count(scores: Tensor, i: int, j: int) -> None:
        """Add what the tile of block i's pictures and block j's captions has ahead of theirs."""
        (images, _), (_, texts) = blocks[i], blocks[j]
        text_rank[images] += _ahead(scores, best_of[i], order[texts], caption_of[i])
        image_rank[order[texts]] += _ahead(scores.T, score_of[j], pictures[images], own[texts])

    # Of a block's pictures [P]: the score of the best of their captions, and which it is; of its captions [C]: theirs.
    best_of, caption_of, score_of = list[Tensor](), list[Tensor](), list[Tensor]()
    for i, (images, texts) in enumerate(blocks):
        scores, is_own = tile(images, texts), own[texts] == pictures[images, None]
        best, caption = scores.masked_fill(~is_own, float("-inf")).max(dim=1)  # of equal ones the first
        best_of.append(best)
        caption_of.append(order[texts][caption])
        score_of.append(scores.T[is_own.T])
        count(scores, i, i)
    for i, (images, _) in enumerate(blocks):
        for j, (_, texts) in enumerate(blocks):
            if i != j:
                count(tile(images, texts), i, j)
    return text_rank, image_rank


def _ahead(scores: Tensor, own: Tensor, columns: Tensor, own_column: Tensor) -> Tensor:
    """How many of each row of scores `[R, C]` are ahead of own `[R]`: greater, or as great and of a lower column."""
    if columns.max() < own_column.min():
        return (scores >= own[:, None]).sum(dim=1, dtype=torch.int32)  # half the time of int64
    if columns.min() <= own_column.max():
        tied = (scores == own[:, None]) & (columns < own_column[:, None])
        return ((scores > own[:, None]) | tied).sum(dim=1)
    return (scores > own[:, None]).sum(dim=1, dtype=torch.int32)


def recall(text_rank: Tensor, image_rank: Tensor) -> dict[str, float]:
    """Ranks to the seven figures: recall at 1, 5, 10 in percent both ways and their mean, rounded to 2."""
    exact = {
        f"{side}_r{k}": 100 * float((ranks < k).double().mean())
        for side, ranks in (("txt", text_rank), ("img", image_rank))
        for k in (1, 5, 10)
    }
    exact["r_mean"] = sum(exact.values()) / 6
    return {name: round(value, 2) for name, value in exact.items()}


def retrieval_metrics(scores: Tensor | np.ndarray, own_image_of_text: Sequence[int]) -> dict[str, float]:
    """The seven figures of a similarity matrix, `txt_r1/5/10`, `img_r1/5/10`, `r_mean`.

    scores `[I, T]`; own_image_of_text: T picture numbers. Raises ValueError for scores that are not finite, which no
    rank can be read from, and for a picture without a caption.
    """
    scores = torch.as_tensor(scores)
    if not _is_finite(scores):
        raise ValueError("the similarities are not all finite")
    own, order = _sorted(own_image_of_text, len(scores), scores.shape[1], scores.device)
    scores = scores if (order.diff() == 1).all() else scores[:, order]
    return recall(*_ranks(lambda pictures, captions: scores[pictures, captions], own, order))
