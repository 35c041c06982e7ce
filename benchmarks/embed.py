"""Embeddings of an evaluation, by our embedder and as plain code makes them, in items a second.

    python benchmarks/embed.py [--output embed.json] [--override precision=auto] [--captions rsicd_test.json]

Both embed the same pictures, decoded before, and the same captions, with the same random weights, in the config's test
batches. Plain is timm's and transformers' encoders with PIR's heads, eager in float32; captions are in the order given,
each as often as it is there, padded to the longest of its batch and masked. Ours is `models.embedder`, with
`mask_padding`, without which captions are not grouped. Both are in one process, in the environment that `run.py` gives.
`images_ratio` and `texts_ratio`: how many times as many a second are ours, the median of the rounds.

Captions are drawn as long and as often repeated as in RSICD's test split (see `drawn_captions`), or those of an
annotation file of an evaluation; a word is one token, of a vocabulary made of them.
"""

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from numpy import ndarray  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import PreTrainedTokenizerBase  # noqa: E402

from benchmarks.plain import PlainEncoders, plain_encoders  # noqa: E402
from benchmarks.side_by_side import (  # noqa: E402
    Times,
    add_model,
    in_turns,
    launched_environment,
    machine,
    own_process,
    parser_of,
    profiled,
    ratio,
    read,
    report,
    trace_file,
)
from dataset.captions import clean_caption  # noqa: E402
from dataset.tokenizer import load_tokenizer  # noqa: E402
from models.build import build_pir  # noqa: E402
from models.embedder import Embedder, pixels_of  # noqa: E402
from models.encoders import PICTURE_MEAN, PICTURE_STD, PictureEncoder  # noqa: E402
from models.pir import PIR  # noqa: E402
from utils.config import config_from_file  # noqa: E402
from utils.config_checks import MAX_PICTURE_TOKENS  # noqa: E402
from utils.errors import InputError, run_cli  # noqa: E402
from utils.files import read_json  # noqa: E402
from utils.launch import TASKS  # noqa: E402
from utils.processes import autocast_dtype  # noqa: E402

CPU = torch.device("cpu")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
OURS = ("mask_padding=True", "average_orientations=False")  # one view of a picture, as plain code embeds
DISTINCT = 0.37  # of RSICD's 5,000 test captions are there once or for the first time
MEAN_WORDS, SPREAD_WORDS, WORDS = 10.4, 3.1, (3, 30)  # of a cleaned one: mean, standard deviation, least and most
ALPHABET = 400  # different words of drawn captions, about half of RSICD's that are not rare


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write where asked."""
    args = parse(arguments)
    config_from_file(args.config, [*args.override, *OURS])  # what is wrong there is told before a process starts
    captions = read_captions(args.captions) if args.captions else drawn_captions(args.texts)
    with own_process(launched_environment()) as call:
        figures, times, tables = call(measure, args, captions[: args.texts])
    print(*tables, sep="\n", end="\n" * bool(tables))
    report(args, figures, times, title=f"Embedding {figures['pictures']} pictures, {figures['captions']} captions")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of("embed.py", __doc__, repeats=5)
    add_model(parser, ROOT / TASKS["itr_rsicd"])
    parser.add_argument("--images", type=int, default=256, help="so many pictures (256)")
    parser.add_argument("--texts", type=int, default=1000, help="so many captions, at most (1000)")
    parser.add_argument("--captions", type=Path, metavar="JSON", help="an annotation file of an evaluation")
    return read(parser, arguments, "images", "texts")


def read_captions(file: Path) -> list[str]:
    """The cleaned captions of an annotation file of an evaluation, in its order; its pictures are not looked for."""
    try:
        return [clean_caption(caption) for entry in read_json(file) for caption in entry["caption"]]
    except (TypeError, KeyError, AttributeError):
        raise InputError(f"--captions {file}: expected a list of records with 'image' and 'caption', a list") from None


def drawn_captions(count: int) -> list[str]:
    """Captions of random words, of which `DISTINCT` are different, in random order.

    Their numbers of words have a gamma distribution of RSICD's mean and deviation.
    """
    draw, numbers = random.Random(0), np.random.default_rng(0)
    shape = (MEAN_WORDS / SPREAD_WORDS) ** 2
    lengths = numbers.gamma(shape, MEAN_WORDS / shape, max(1, round(DISTINCT * count))).round().clip(*WORDS)
    words = [f"word{number}" for number in range(ALPHABET)]
    distinct = [" ".join(draw.choices(words, k=int(length))) for length in lengths]
    captions = distinct + draw.choices(distinct, k=count - len(distinct))
    draw.shuffle(captions)
    return captions


# ---- in a process of its own ----


def measure(args: argparse.Namespace, captions: Sequence[str]) -> tuple[dict[str, Any], Times, list[str]]:
    """Ratios and speeds, the seconds of each way, and the tables of profiles where they are asked for."""
    embedder, plain = made(args, captions)
    size = embedder.config.image_res
    pictures = [*np.random.default_rng(0).integers(0, 256, (args.images, size, size, 3), dtype=np.uint8)]
    ways: dict[str, Callable[[], Tensor]] = {
        "pictures, plain": lambda: plain_images(plain, embedder, pictures),
        "pictures": lambda: embedder.image_embeddings(pictures),
        "captions, plain": lambda: plain_texts(plain, embedder, captions),
        "captions": lambda: embedder.text_embeddings(captions),
    }
    times = in_turns(ways, args.repeats)
    figures: dict[str, Any] = {
        "images_ratio": ratio(times, "pictures, plain", "pictures"),
        "texts_ratio": ratio(times, "captions, plain", "captions"),
        "pictures": len(pictures),
        "captions": len(captions),
        "distinct_captions": len(set(captions)),
        "words_of_a_caption": round(sum(len(caption.split()) for caption in captions) / len(captions), 2),
    }
    for name, count in (("pictures", len(pictures)), ("captions", len(captions))):
        for way in (name, f"{name}, plain"):
            figures[f"{way} a second"] = round(count / float(np.median(times[way])), 1)
    figures |= {"config": args.config.name, "overrides": args.override, "machine": machine()}
    ours = ("pictures", "captions") if args.profile else ()
    return figures, times, [profiled(ways[name], trace_file(args, name)) for name in ours]


def made(args: argparse.Namespace, captions: Sequence[str]) -> tuple[Embedder, PlainEncoders]:
    """Our embedder of random weights, and plain encoders of the same."""
    config = config_from_file(args.config, [*args.override, *OURS])
    torch.manual_seed(0)
    model = build_pir(config).eval()
    plain = plain_encoders(config)
    plain.take_weights(model)
    tokenizer = tokenizer_of(captions, config.text_config["vocab_size"])
    return Embedder(model, config, tokenizer, CPU, autocast_dtype(config.precision, CPU), pixels_of), plain


def tokenizer_of(captions: Sequence[str], most: int) -> PreTrainedTokenizerBase:
    """A tokenizer to which the captions' words are a token each, the first `most` of them known."""
    words = dict.fromkeys(word for caption in captions for word in caption.split())
    with TemporaryDirectory() as folder:
        vocabulary = [*SPECIAL, *words][:most]
        Path(folder, "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        return load_tokenizer(Path(folder), most)


@torch.inference_mode()
def plain_images(plain: PlainEncoders, embedder: Embedder, pictures: Sequence[ndarray]) -> Tensor:
    """uint8 pictures `[S, S, 3]` -> unit embeddings `[N, D]`."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PICTURE_MEAN, PICTURE_STD))
    rows, size = [], embedder.config.batch_size_test
    for start in range(0, len(pictures), size):
        batch = torch.stack([torch.from_numpy(picture) for picture in pictures[start : start + size]])
        images = (batch.permute(0, 3, 1, 2).float() / 255 - mean) / std
        rows.append(plain_head(plain, cast(PIR, embedder.model), images))
    return torch.cat(rows)


def plain_head(plain: PlainEncoders, model: PIR, images: Tensor) -> Tensor:
    """Normalised pictures `[B, 3, S, S]` -> unit embeddings `[B, D]` by the plain encoders and PIR's picture side."""
    tokens = model.vision_encoder.tokens_of(plain.vision.forward_features(as_pretrained(images, model.vision_encoder)))
    tokens = model.vision_proj(tokens)[:, :MAX_PICTURE_TOKENS]
    summary = tokens[:, 0]
    if plain.prior:
        instruction = model.conv_proj(plain.prior(as_pretrained(images, model.instruction_encoder)))
        summary = summary + model.vision_instruction(tokens, instruction.unsqueeze(1))
    if model.use_tel:
        summary = summary + model.vision_layer(tokens)
    return F.normalize(summary, dim=-1)


def as_pretrained(images: Tensor, encoder: PictureEncoder) -> Tensor:
    """Pictures in the normalisation that an encoder of ours takes."""
    return images * encoder.scale + encoder.shift if encoder.own_normalisation else images


@torch.inference_mode()
def plain_texts(plain: PlainEncoders, embedder: Embedder, captions: Sequence[str]) -> Tensor:
    """Captions -> unit embeddings `[N, D]`."""
    model, c = cast(PIR, embedder.model), embedder.config
    cut: dict[str, Any] = {"padding": "longest", "truncation": True, "max_length": c.max_tokens}
    rows = []
    for start in range(0, len(captions), c.batch_size_test_text):
        batch = list(captions[start : start + c.batch_size_test_text])
        words = embedder.tokenizer(batch, return_tensors="pt", **cut)
        ids, mask = words.input_ids, words.attention_mask
        tokens = model.text_proj(plain.text(ids, attention_mask=mask).last_hidden_state)
        summary = model.text_encoder.summary(tokens, mask)
        if model.has_lca:
            summary = summary + model.language_cycle(tokens, mask)
        if model.use_tel:
            summary = summary + model.text_layer(tokens, mask)
        rows.append(F.normalize(summary, dim=-1))
    return torch.cat(rows)


if __name__ == "__main__":
    run_cli(main)
