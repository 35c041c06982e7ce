"""A trained model, ready to use: pictures and sentences -> unit embeddings.

from models import load

model = load("outputs/itr_demo")
scores = model.score(["a.jpg", "b.jpg"], ["a lake beside a road"])  # [2, 1]
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from dataset.captions import clean_caption
from dataset.evaluation_loaders import CaptionBatch, caption_batches, evaluation_images_loader
from dataset.pictures import USUAL, PictureRule, load_picture, picture_rule, rgb_pixels
from dataset.tokenizer import load_tokenizer
from dataset.transforms import evaluation_transform
from models.build import build_model
from models.encoders import normalise
from models.released import load_released
from models.retrieval import RetrievalModel
from utils import processes
from utils.checkpoint import read_checkpoint
from utils.config import Config, config_from_file
from utils.errors import InputError
from utils.logs import progress
from utils.output import CONFIG, config_in, weights_in
from utils.start_names import HUB, local_start

Picture = str | Path | ndarray | Image.Image


@dataclass(frozen=True)
class Embedder:
    """A model with what turns pictures and sentences into its input.

    Any thread may ask. In a program of several processes each embeds its share, and all get everything: every process
    must ask, and one thread of each.
    """

    model: RetrievalModel
    config: Config
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    autocast: torch.dtype | None  # that the encoders compute in where that is not float32
    load: Callable[[Any], ndarray]  # a picture -> uint8 [H, W, 3]
    num_workers: int = 0
    tokenizing: threading.Lock = field(default_factory=threading.Lock)  # held while `tokenizer` works

    def score(self, images: Sequence[Picture], texts: Sequence[str]) -> ndarray:
        """N pictures and M sentences, as of the two verbs below -> their cosine similarities, float32 `[N, M]`."""
        return self.embed_images(images) @ self.embed_texts(texts).T

    def embed_images(self, pictures: Sequence[Picture]) -> ndarray:
        """Files, uint8 arrays `[H, W, 3]` or PIL pictures -> unit embeddings, float32 `[N, D]`."""
        from models.given import check_list  # here, as in all verbs: a training has no use for it

        check_list(pictures, "pictures")
        averaged = self.config.average_orientations
        return self.image_embeddings(pictures, average_orientations=averaged).float().cpu().numpy()

    def embed_texts(self, sentences: Sequence[str]) -> ndarray:
        """Sentences, cleaned as captions are -> unit embeddings, float32 `[N, D]`."""
        from models.given import check_sentences

        check_sentences(sentences)
        return self.text_embeddings([clean_caption(sentence) for sentence in sentences]).float().cpu().numpy()

    def image_embeddings(
        self, pictures: Sequence[Any], *, average_orientations: bool = False, label: str | None = None
    ) -> Tensor:
        """What `load` reads -> `[N, D]` on the device; label: of the progress that is shown, None: none is."""
        c = self.config
        batches = evaluation_images_loader(
            pictures,
            evaluation_transform(c.image_res),
            c.batch_size_test,
            self.num_workers,
            rank=processes.rank(),
            world_size=processes.world_size(),
            pin_memory=self.device.type == "cuda",
            load=self.load,
        )
        with self._evaluating():
            shown = self._shown(batches, label)
            return embed_picture_batches(
                self.model, shown, len(pictures), self.device, average_orientations=average_orientations
            )

    def embed_pixels(self, images: Tensor) -> ndarray:
        """Transformed pictures, uint8 `[b, 3, S, S]` -> `[b, D]`, of this process alone."""
        with self._evaluating(), torch.inference_mode():
            averaged = self.config.average_orientations
            return _picture_embeddings(self.model, images, self.device, averaged).float().cpu().numpy()

    def text_embeddings(self, captions: Sequence[str], *, label: str | None = None) -> Tensor:
        """Cleaned captions -> `[N, D]` on the device; label as of `image_embeddings`."""
        if self.config.mask_padding and len(distinct := list(dict.fromkeys(captions))) < len(captions):
            place = {caption: i for i, caption in enumerate(distinct)}  # of RSICD's half are there twice or more
            return self.text_embeddings(distinct, label=label)[[place[caption] for caption in captions]]
        with self.tokenizing:  # a fast tokenizer keeps where it cuts as its own state, and raises for two at once
            batches = caption_batches(
                captions,
                self.tokenizer,
                self.config.batch_size_test_text,
                self.config.max_tokens,
                # With padding attended an embedding depends on its batch, which is as released then.
                group_by_length=self.config.mask_padding,
                rank=processes.rank(),
                world_size=processes.world_size(),
            )
        with self._evaluating():
            return embed_caption_batches(self.model, self._shown(batches, label), len(captions), self.device)

    def _shown(self, batches: DataLoader | list[CaptionBatch], label: str | None) -> Iterable[Any]:
        return progress(batches, len(batches), label) if label else batches

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        self.model.eval()
        with processes.autocast(self.autocast, self.device):
            yield


def load(
    checkpoint: str | Path,
    *,
    config_file: str | Path | None = None,
    tokenizer: str | None = None,
    device: str = "auto",
    override: Sequence[str] = (),
) -> Embedder:
    """The model of a folder (exported, as published or as a run left it), or of weights with their config beside them.

    config_file: of weights that have none beside them. tokenizer: a folder with the vocabulary, where the one that the
    config names is not to be found. device: auto, cpu, cuda or cuda:N. override: `KEY=VALUE` of the config. Raises
    InputError where something is missing or does not fit.
    """
    from models.given import check_load

    check_load(checkpoint, device, override, config_file)
    weights = weights_in(str(checkpoint))
    beside = Path(weights).parent
    given = [*override] if tokenizer is None else [*override, f"tokenizer={tokenizer}"]
    config = config_from_file(config_file or config_in(str(beside)) or beside / CONFIG, given)
    chosen = processes.device_for(device)
    model = build_model(config)
    load_released(model, read_checkpoint(weights))
    words = configured_tokenizer(config)
    pixels = partial(pixels_of, rule=picture_rule(config))
    autocast = processes.autocast_dtype(config.precision, chosen)
    return Embedder(model.to(chosen), config, words, chosen, autocast, pixels)


def configured_tokenizer(config: Config, *, download: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a config, its vocabulary checked against the text encoder's."""
    if config.clip_model:
        from models.clip_words import words_of_pair  # for those who have one

        return words_of_pair(config, download=download)
    if config.tokenizer_folder is None:
        raise InputError("config: 'text_encoder' is null, so 'tokenizer' must name a folder with a vocabulary")
    return tokenizer_in(config.tokenizer_folder, config.text_config["vocab_size"], download=download)


def tokenizer_in(folder: str, vocab_size: int, *, download: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a start's folder, with at most `vocab_size` words."""
    if folder.startswith(HUB):
        from models.start_files import resolve_start  # an evaluation of a local folder has no use for starts

        return load_tokenizer(resolve_start(folder, download=download), vocab_size)
    return load_tokenizer(local_start(folder), vocab_size)


def pixels_of(picture: Picture, rule: PictureRule = USUAL) -> ndarray:
    """A picture file's, array's or PIL picture's pixels, uint8 `[H, W, 3]`."""
    if isinstance(picture, Image.Image):
        return rgb_pixels(picture, "a picture")
    if isinstance(picture, str | Path):
        return load_picture(picture, rule)
    if not isinstance(picture, ndarray):
        raise InputError(f"a picture is a {type(picture).__name__}; give a file, a uint8 array or a PIL picture")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise InputError(f"a picture is {picture.dtype} {list(picture.shape)}, expected uint8 [H, W, 3] in RGB")
    return picture


# ---- batches to embeddings (docs/behaviour.md, 6) ----


@torch.inference_mode()
def embed_picture_batches(
    model: RetrievalModel,
    batches: Iterable[tuple[Tensor, Tensor]],
    total: int,
    device: torch.device,
    *,
    average_orientations: bool = False,
) -> Tensor:
    """Batches of (positions `[b]`, uint8 pictures `[b, 3, H, W]`) -> `[total, D]` on every process, in order.

    average_orientations: embed each (square) picture in its eight orientations and take the mean, as a unit vector.
    """
    embedded = [
        (positions, _picture_embeddings(model, images, device, average_orientations)) for positions, images in batches
    ]
    return _in_order(embedded, total, model, device)


def _picture_embeddings(
    model: RetrievalModel, images: Tensor, device: torch.device, average_orientations: bool
) -> Tensor:
    """uint8 `[b, 3, H, W]` -> unit embeddings `[b, D]`."""
    images = normalise(images.to(device, non_blocking=True))
    views = orientations(images) if average_orientations else [images]
    embeds = torch.stack([model.encode_image(view) for view in views])  # [1 or 8, b, D]
    return F.normalize(embeds.mean(dim=0), dim=-1) if average_orientations else embeds[0]


def orientations(images: Tensor) -> list[Tensor]:
    """The four quarter turns of pictures `[B, 3, S, S]` and of their mirror images."""
    return [view.rot90(turns, (2, 3)) for view in (images, images.flip(3)) for turns in range(4)]


@torch.inference_mode()
def embed_caption_batches(
    model: RetrievalModel, batches: Iterable[tuple[Tensor, Tensor, Tensor]], total: int, device: torch.device
) -> Tensor:
    """Batches of (positions `[b]`, ids `[b, L]`, attention mask `[b, L]`) -> `[total, D]`, in order."""
    embedded = [(positions, model.encode_text(ids.to(device), mask.to(device))) for positions, ids, mask in batches]
    return _in_order(embedded, total, model, device)


def _in_order(embedded: list[tuple[Tensor, Tensor]], total: int, model: RetrievalModel, device: torch.device) -> Tensor:
    """This process's (positions, rows) and everyone else's, as one `[total, D]`."""
    dim = model.embed_dim
    positions = torch.cat([p.to(device) for p, _ in embedded] or [torch.empty(0, dtype=torch.long, device=device)])
    rows = torch.cat([r[: len(p)] for p, r in embedded] or [torch.empty(0, dim, device=device)])
    ordered = torch.empty(total, dim, device=device)
    ordered[processes.gather_uneven(positions)] = processes.gather_uneven(rows)
    return ordered
