"""Ranks and recall of a retrieval (docs/behaviour.md, 6)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

BLOCK = 1024  # rows of similarities held at once


def _ranks_of(scores: Tensor, column: Tensor) -> Tensor:
    """The place of `column[i]` in row i of scores, 0 for the best; among equal scores the lower column first."""
    own = scores.gather(1, column[:, None])
    columns = torch.arange(scores.shape[1], device=scores.device)
    return ((scores > own) | ((scores == own) & (columns < column[:, None]))).sum(dim=1)


def text_ranks(scores: Tensor, pictures: Tensor, own_image_of_text: Tensor) -> Tensor:
    """Image to text: the best place of a picture's own captions. scores `[P, T]` of `pictures` `[P]` -> `[P]`."""
    foreign = own_image_of_text[None, :] != pictures[:, None]
    return _ranks_of(scores, scores.masked_fill(foreign, float("-inf")).argmax(dim=1))


def image_ranks(scores: Tensor, own_image: Tensor) -> Tensor:
    """Text to image: the place of a caption's picture. scores `[T, I]`, own_image `[T]` -> `[T]`."""
    return _ranks_of(scores, own_image)


def retrieval_ranks(
    image_embeds: Tensor, text_embeds: Tensor, own_image_of_text: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Both sides' ranks from embeddings, similarities computed in blocks of rows.

    image_embeds `[I, D]`, text_embeds `[T, D]`, own_image_of_text: each caption's picture number.
    Returns the text ranks `[I]` and the image ranks `[T]`, from 0. Raises ValueError for embeddings that are not
    finite, which no rank can be read from.
    """
    if not bool(image_embeds.isfinite().all() and text_embeds.isfinite().all()):
        raise ValueError("the embeddings are not all finite")
    own = torch.as_tensor(own_image_of_text, device=image_embeds.device)
    pictures = torch.arange(len(image_embeds), device=image_embeds.device)
    of_pictures = [text_ranks(image_embeds[p] @ text_embeds.T, p, own) for p in pictures.split(BLOCK)]
    of_texts = [
        image_ranks(texts @ image_embeds.T, its_own)
        for texts, its_own in zip(text_embeds.split(BLOCK), own.split(BLOCK), strict=True)
    ]
    return torch.cat(of_pictures), torch.cat(of_texts)


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

    scores `[I, T]`; own_image_of_text: T picture numbers, every picture with at least one caption.
    Raises ValueError for scores that are not finite, which no rank can be read from.
    """
    scores = torch.as_tensor(scores)
    own = torch.as_tensor(own_image_of_text, device=scores.device)
    if not bool(scores.isfinite().all()):
        raise ValueError("the similarities are not all finite")
    return recall(text_ranks(scores, torch.arange(len(scores), device=scores.device), own), image_ranks(scores.T, own))
