"""Both encoders by torch and by ONNX Runtime: how far apart their embeddings are, and how fast each is.

    python Export.py --checkpoint MODEL --output_dir ONNX --format onnx
    python benchmarks/onnx_speed.py --checkpoint MODEL --onnx ONNX --images FOLDER --captions test.json

Prints the greatest difference over the pictures and captions (of the same pixels and tokens, torch in float32), then
items a second of each, the median of some passes. Captions: an annotation file of an evaluation.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402

from dataset.annotations import read_evaluation  # noqa: E402
from dataset.evaluation_loaders import caption_batches, evaluation_images_loader  # noqa: E402
from dataset.transforms import evaluation_transform  # noqa: E402
from export.onnx_encoders import IMAGE, TEXT  # noqa: E402
from models import load  # noqa: E402
from models.embedder import embed_caption_batches, embed_picture_batches  # noqa: E402


def main() -> None:
    """Compare, then time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--captions", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    model = load(args.checkpoint, device="cpu", override=["precision=float32"])
    c, given = model.config, read_evaluation(args.captions, args.images)
    images, captions = given.images[: args.count], given.captions[: args.count]
    pictures = list(evaluation_images_loader(images, evaluation_transform(c.image_res), args.batch))
    sentences = caption_batches(captions, model.tokenizer, args.batch, c.max_tokens, group_by_length=c.mask_padding)
    image_run, text_run = (onnxruntime.InferenceSession(args.onnx / name, options).run for name in (IMAGE, TEXT))
    averaged = c.average_orientations
    sides: dict[str, tuple[int, Callable[[], np.ndarray], Callable[[], np.ndarray]]] = {
        "pictures": (
            len(images),
            lambda: embed_picture_batches(
                model.model.eval(), pictures, len(images), model.device, average_orientations=averaged
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
    for name, (count, by_torch, by_onnx) in sides.items():
        difference = np.abs(by_torch() - by_onnx()).max()  # the first call of each warms up, too
        speeds = [count / seconds(side, args.passes) for side in (by_torch, by_onnx)]
        print(f"{count} {name}: apart by {difference:.1e}; {speeds[0]:.1f} by torch, {speeds[1]:.1f} by ONNX a second")


def in_order(batches: list[tuple[torch.Tensor, np.ndarray]]) -> np.ndarray:
    """Rows of batches at their positions, `[N, D]`."""
    rows = np.concatenate([embeds for _, embeds in batches])
    return rows[np.argsort(np.concatenate([at.numpy() for at, _ in batches]))]


def seconds(run: Callable[[], np.ndarray], passes: int) -> float:
    """The median time of some calls."""
    times = []
    for _ in range(passes):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
