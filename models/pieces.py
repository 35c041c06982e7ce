"""A batch embedded in pieces: the gradient of the whole, the memory of one (gradient caching, Gao et al. 2021)."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def embedded_in_pieces(model: Any, images: Tensor, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """What `encode_image` and `encode_text` give, the activations of one of `model.accumulate` pieces held at a time.

    Each piece is embedded again, with the same dropout, when the gradient of a loss over the whole batch comes back to
    it. A frozen prior sees each piece once, or the batch whole where its batch norm is of the batch; other batch norms
    are of a piece.
    """
    n = min(model.accumulate, len(images))
    common = model.common_stages
    frozen = model.has_vir and not model.instruction_encoder.finetune
    if frozen and model.instruction_encoder.batch_stats:
        priors = model.instruction_encoder(images).tensor_split(n)
    elif frozen and not (common and common.count(model.vision_encoder, model.instruction_encoder)):
        priors = [model.instruction_encoder(piece) for piece in images.tensor_split(n)]
    else:
        priors = [None] * n
    masks = [None] * n if mask is None else mask.tensor_split(n)
    pictures = zip(images.tensor_split(n), priors, strict=True)
    captions = zip(ids.tensor_split(n), masks, strict=True)
    v = [checkpoint(model.encode_image, *piece, use_reentrant=False) for piece in pictures]
    t = [checkpoint(model.encode_text, *piece, use_reentrant=False) for piece in captions]
    return torch.cat(v), torch.cat(t)
