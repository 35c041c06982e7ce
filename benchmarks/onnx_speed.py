"""Both encoders by torch and by ONNX Runtime: how far apart their embeddings are, and how fast each is.

    python Export.py --checkpoint MODEL --output_dir ONNX --format onnx
    python benchmarks/onnx_speed.py --checkpoint MODEL --onnx ONNX --images FOLDER --captions test.json

Prints the greatest difference over the pictures and captions (of the same pixels and tokens, torch in float32), then
items a second of each, the median of some passes. Captions: an annotation file of an evaluation. Torch embeds each
picture in as many orientations as the graph. With a `--count` that takes in the whole file, the `r_mean` of both too.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from numpy import ndarray  # noqa: E402

from utils.arguments import OneLineParser, name, named_path  # noqa: E402
from utils.errors import InputError, run_cli  # noqa: E402
from utils.files import read_json  # noqa: E402
from utils.output import PREPROCESSING  # noqa: E402


def main(arguments: list[str] | None = None) -> None:
    """Compare, then time."""
    args = parse(arguments)
    orientations = orientations_in(args.onnx / PREPROCESSING)
    import onnxruntime  # after the command line, as it takes seconds
    import torch

    from dataset.annotations import read_evaluation
    from dataset.evaluation_loaders import caption_batches, evaluation_images_loader
    from dataset.transforms import evaluation_transform
    from export.folder import IMAGE, TEXT
    from models import load
    from models.embedder import embed_caption_batches, embed_picture_batches

    torch.set_num_threads(args.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    model = load(args.checkpoint, device="cpu", override=["precision=float32"])
    c, given = model.config, read_evaluation(args.captions, args.images)
    images, captions = given.images[: args.count], given.captions[: args.count]
    pictures = list(evaluation_images_loader(images, evaluation_transform(c.image_res), args.batch))
    sentences = caption_batches(captions, model.tokenizer, args.batch, c.max_tokens, group_by_length=c.mask_padding)
    image_run, text_run = (onnxruntime.InferenceSession(args.onnx / file, options).run for file in (IMAGE, TEXT))
    sides: dict[str, tuple[int, Callable[[], ndarray], Callable[[], ndarray]]] = {
        "pictures": (
            len(images),
            lambda: embed_picture_batches(
                model.model.eval(), pictures, len(images), model.device, average_orientations=orientations == 8
            ).numpy(),
            lambda: in_order([(at, image_run(None, {"images": batch.numpy()})[0]) for at, batch in pictures]),
        ),
        "captions": (
            len(captions),
            lambda: embed_caption_batches(model.model.eval(), sentences, len(captions), model.device).numpy(),
            lambda: in_order(
                [
                    (at, text_run(None, {"ids": ids.numpy(), "attention_mask": mask.numpy()})[0])
                    for at, ids, mask in sentences
                ]
            ),
        ),
    }
    embeds: dict[str, tuple[ndarray, ndarray]] = {}
    for side, (count, by_torch, by_onnx) in sides.items():
        embeds[side] = by_torch(), by_onnx()  # the first call of each warms up, too
        difference = np.abs(embeds[side][0] - embeds[side][1]).max()
        speeds = [count / seconds(run, args.passes) for run in (by_torch, by_onnx)]
        print(f"{count} {side}: apart by {difference:.1e}; {speeds[0]:.1f} by torch, {speeds[1]:.1f} by ONNX a second")
    if len(images) == len(given.images) and len(captions) == len(given.captions):
        pairs = zip(embeds["pictures"], embeds["captions"], strict=True)
        means = [r_mean(pictures, captions, given.own_image_of_text) for pictures, captions in pairs]
        print(f"r_mean {means[0]:.2f} by torch, {means[1]:.2f} by ONNX")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser("onnx_speed.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--checkpoint", type=name, required=True, help="the model, as Export.py took it")
    add("--onnx", type=named_path, required=True, metavar="FOLDER", help="what Export.py wrote of it")
    add("--captions", type=name, required=True, metavar="JSON", help="an annotation file of an evaluation")
    add("--images", type=name, required=True, metavar="FOLDER", help="where its pictures lie")
    add(
        "--count",
        type=int,
        default=100,
        help="so many pictures, and so many captions, at most (100); 5000 captions want 5000",
    )
    add("--batch", type=int, default=20, help="items of a batch (20)")
    add("--passes", type=int, default=3, help="the median is of so many (3)")
    add("--threads", type=int, default=1, help="of torch, and of ONNX Runtime (1)")
    args = parser.parse_args(arguments)
    if min(args.count, args.batch, args.passes, args.threads) < 1:
        raise InputError("--count, --batch, --passes and --threads: give 1 or more")
    return args


def r_mean(pictures: ndarray, captions: ndarray, own_image_of_text: list[int]) -> float:
    """The mean recall of embeddings `[I, D]` and `[T, D]`, of which picture each caption is."""
    from utils.metrics import retrieval_metrics

    return retrieval_metrics(pictures @ captions.T, own_image_of_text)["r_mean"]


def orientations_in(file: Path) -> int:
    """How often the graph embeds a picture, by its `preprocessing.json`."""
    try:
        found: int = read_json(file)["image"]["orientations"]
    except (KeyError, TypeError):
        found = 0
    if found not in (1, 8):
        raise InputError(f"{file} does not say that the graph embeds a picture in 1 orientation or in 8")
    return found


def in_order(batches: list[tuple[Any, ndarray]]) -> ndarray:
    """(positions `[b]`, rows `[b, D]`) of batches -> rows at their positions, `[N, D]`."""
    rows = np.concatenate([embeds for _, embeds in batches])
    return rows[np.argsort(np.concatenate([at.numpy() for at, _ in batches]))]


def seconds(run: Callable[[], ndarray], passes: int) -> float:
    """The median time of some calls."""
    times = []
    for _ in range(passes):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    run_cli(main)
