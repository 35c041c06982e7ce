"""Zero-shot classification: a class is the mean of its sentences, a picture is of the class that is nearest."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.captions import clean_caption
from dataset.vocabulary import unknown_share
from models.embedder import Embedder
from utils.errors import InputError
from utils.logs import say
from zeroshot.templates import prompts

FIRST = 5  # of the nearest classes, for top-5


def class_embeddings(embedder: Embedder, words: Sequence[str], templates: Sequence[str]) -> Tensor:
    """C classes' words -> unit embeddings `[C, D]`: the mean over the templates' unit embeddings, normalised.

    As open_clip's `build_zero_shot_classifier`. A model with a CLIP tower pair gets the sentences as they are written,
    others as the captions that they were trained on, without case and punctuation. Raises InputError for sentences of
    which the vocabulary knows no word.
    """
    sentences = prompts(words, templates)
    if embedder.config.clip_model is None:
        sentences = [clean_caption(sentence) for sentence in sentences]
    if line := unknown_share({"classes'": sentences}, embedder.tokenizer):
        say(line)
    embeds = embedder.text_embeddings(sentences, label="embedding sentences").float()  # [C * T, D]
    return F.normalize(embeds.view(len(words), len(templates), -1).mean(dim=1), dim=-1)


def nearest_classes(embedder: Embedder, pictures: Sequence[str], classes: Tensor) -> Tensor:
    """Picture files and class embeddings `[C, D]` -> each one's nearest classes `[N, min(5, C)]`, the nearest first.

    Of equal cosines the class of the lower number comes first.
    """
    embeds = embedder.image_embeddings(
        pictures, average_orientations=embedder.config.average_orientations, label="embedding pictures"
    )
    scores = embeds.float() @ classes.T  # [N, C]
    if not scores.isfinite().all():
        raise InputError("the embeddings are not all finite: the weights are damaged or training diverged")
    return torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :FIRST]
