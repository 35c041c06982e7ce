"""Contrastive and cluster-wise affiliation loss over the batch of all processes (docs/behaviour.md, 3).

Features are normalised, `[B, D]` on each of W processes, N rows in all. A process compares its own rows with
everyone's, `[B, N]`; the loss is that of the global batch, the same value on every process.

gather_grad: `full`, the mean that DistributedDataParallel takes of the gradients is that of the global loss; `local`,
as released, 1/W of it, but for the temperatures'. counts: each process's B in rank order, where they differ.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.gathering import Counts, gather, global_mean, own_places, with_gradient, with_mean_gradient
from utils.processes import world_size


def contrastive_loss(
    v: Tensor,
    t: Tensor,
    temp: Tensor | float,
    idx: Tensor | None = None,
    sentence: Tensor | None = None,
    *,
    gather_grad: str = "local",
    counts: Counts = None,
) -> Tensor:
    """Image-text contrastive loss with every pair of the same picture as a positive.

    v, t: image and text features `[B, D]`; temp: temperature; idx `[B]`: picture ids (None: each its own).
    sentence `[B]`: a number a sentence; other pictures' captions equal to one of its own are its positives too.
    Returns the mean of the image-to-text and text-to-image cross-entropies.
    """
    v, t, temp = with_gradient(v, gather_grad), with_gradient(t, gather_grad), with_mean_gradient(temp)
    own = own_places(v, counts)
    image_to_text = v @ gather(t, counts).T / temp  # [B, N]
    text_to_image = t @ gather(v, counts).T / temp  # [B, N]
    picture = torch.arange(image_to_text.shape[1], device=v.device) if idx is None else gather(idx, counts)  # [N]
    if sentence is None:
        texts_of_own = pictures_of_own = (picture[own, None] == picture).float()
    else:
        _, picture = picture.unique(return_inverse=True)
        _, said = gather(sentence, counts).unique(return_inverse=True)  # [N]
        pairs = picture * len(said) + said  # [N], a number for each sentence of each picture
        texts_of_own = torch.isin(picture[own, None] * len(said) + said, pairs).float()  # [B, N]
        pictures_of_own = torch.isin(picture * len(said) + said[own, None], pairs).float()  # [B, N]
    texts_of_own, pictures_of_own = (F.normalize(x, p=1, dim=1) for x in (texts_of_own, pictures_of_own))
    return global_mean(
        (_cross_entropy(image_to_text, texts_of_own) + _cross_entropy(text_to_image, pictures_of_own)) / 2
    )


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Of this process's rows `[B, N]`, such that the mean over processes is the mean over all N rows."""
    return F.cross_entropy(logits, target, reduction="sum") * world_size() / logits.shape[1]


def class_centers(features: Tensor, label: Tensor, of: Tensor | None = None) -> Tensor:
    """The mean of the features with each label: `[B, D]`, `[B]` -> `[B, D]`, or of other labels `[n]` -> `[n, D]`."""
    same = ((label if of is None else of)[:, None] == label[None, :]).to(features.dtype)
    return same @ features / same.sum(dim=1, keepdim=True)


def affiliation_loss(
    v: Tensor,
    t: Tensor,
    label: Tensor,
    temp: Tensor | float,
    *,
    center_scope: str = "process",
    center_choice: str = "caption",
    same_class_negatives: bool = True,
    gather_grad: str = "local",
    counts: Counts = None,
) -> Tensor:
    """Cluster-wise affiliation loss: a picture to the text centre of its scene, and captions to the image centre.

    v, t `[B, D]`; label `[B]`: scene classes; temp: its own temperature.
    center_scope: centres from this process's samples (`process`, as released) or all (`global`).
    center_choice: each image centre chooses its `caption` among all, as released, or a caption its `center`, as
    PriorCLIP's.
    same_class_negatives: as released, another sample of the class is a negative though its centre is the
    same; False leaves it out of the comparison.
    """
    v, t, temp = with_gradient(v, gather_grad), with_gradient(t, gather_grad), with_mean_gradient(temp)
    own, all_label, all_t = own_places(v, counts), gather(label, counts), gather(t, counts)
    if center_scope == "process":
        image_centers, text_centers = class_centers(v, label), class_centers(t, label)  # [B, D]
    else:
        image_centers = class_centers(gather(v, counts), all_label, of=label)
        text_centers = class_centers(all_t, all_label, of=label)
    image_to_center = v @ gather(text_centers, counts).T / temp  # [B, N]
    if center_choice == "caption":
        text_and_center = image_centers @ all_t.T / temp  # [B, N]
    else:
        text_and_center = t @ gather(image_centers, counts).T / temp  # [B, N]
    if not same_class_negatives:
        left_out = (label[:, None] == all_label) & (own[:, None] != torch.arange(len(all_t), device=v.device))
        image_to_center = image_to_center.masked_fill(left_out, float("-inf"))
        text_and_center = text_and_center.masked_fill(left_out, float("-inf"))
    return global_mean((_cross_entropy(image_to_center, own) + _cross_entropy(text_and_center, own)) / 2)
