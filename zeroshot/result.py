"""What a zero-shot classification leaves: `result.json`, `confusion.png` and printed figures."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.embedder import Embedder
from utils import output, processes
from utils.confusion import accuracy, class_accuracies, confusion_matrix, draw_confusion
from utils.cost import card_settings, library_versions
from utils.earlier import keep_earlier, remove_run
from utils.files import file_checksum
from utils.logs import say, write_json
from zeroshot.classifying import FIRST
from zeroshot.pictures import ScenePictures


def open_folder(args: argparse.Namespace) -> None:
    """Make `--output_dir`, free for this result. Raises InputError where a training or another program has it."""
    folder = args.output_dir
    output.check_output(folder, resume=False, overwrite=args.overwrite, evaluate=True)
    processes.barrier()  # before process 0 makes what the others would find
    if processes.is_main():
        output.open_output(folder)
        output.lock(folder)


def measure(nearest: Tensor, labels: Tensor, classes: Sequence[str]) -> tuple[dict[str, Any], Tensor]:
    """Figures in percent, rounded to 2, and the counts `[C, C]` of what is recognised as what.

    nearest `[N, k]`: each picture's nearest classes, labels `[N]`. `top5` is None for five classes or fewer, where
    every answer would be right.
    """
    matrix = confusion_matrix(labels, nearest[:, 0], len(classes))
    hit = (nearest == labels[:, None]).any(dim=1)  # [N]
    of_class = matrix.sum(dim=1)
    among = torch.zeros_like(of_class).index_add(0, labels, hit.long())  # [C] pictures
    has_top5 = len(classes) > FIRST
    per_class = {}
    for number, (one, percent) in enumerate(zip(classes, class_accuracies(matrix), strict=True)):
        pictures = int(of_class[number])
        per_class[one] = {"top1": percent, "top5": None, "pictures": pictures}
        if has_top5 and pictures:
            per_class[one]["top5"] = round(100 * int(among[number]) / pictures, 2)
    figures = accuracy(matrix)
    top5 = round(100 * float(hit.double().mean()), 2) if has_top5 else None
    return {
        "top1": figures["top1"],
        "top5": top5,
        "mean_per_class": figures["mean_per_class"],
        "per_class": per_class,
    }, matrix


def write_result(
    args: argparse.Namespace, embedder: Embedder, scenes: ScenePictures, nearest: Tensor, asked: dict[str, Any]
) -> None:
    """Write the result, `result.json` last, and print its figures. asked: words, their source and the templates."""
    if not processes.is_main():
        return
    labels = torch.tensor([picture.label for picture in scenes.pictures])
    figures, matrix = measure(nearest.cpu(), labels, scenes.classes)
    for one, words in asked["words"].items():
        figures["per_class"][one]["words"] = words
    weights = Path(output.weights_in(args.checkpoint))
    result = {
        **figures,
        "split": Path(args.annotations[0] if args.annotations else args.images.name).stem,
        "source": scenes.source,
        "pictures": len(scenes.pictures),
        "classes": list(scenes.classes),
        "names": asked["source"],
        "templates": asked["templates"],
        "checkpoint": args.checkpoint,
        "weights_sha256": file_checksum(weights),
        "processes": processes.world_size(),
        "config": embedder.config.to_dict(),
        "cuda": card_settings(embedder.device),
        "versions": library_versions(),
    }
    folder = args.output_dir
    if args.overwrite:
        remove_run(folder, evaluate=True, reads=[str(weights)])
    else:
        keep_earlier(folder)
    title = f"zero-shot, {result['split']}, {len(labels)} pictures, top-1 {figures['top1']:.2f} %"
    draw_confusion(folder / output.CONFUSION, matrix, scenes.classes, title=title)
    write_json(folder / output.RESULT, result)
    output.unlock(folder)
    top5 = "" if figures["top5"] is None else f", top-5 {figures['top5']:.2f}"
    say(f"top-1 {figures['top1']:.2f}{top5}, mean of the classes' top-1 {figures['mean_per_class']:.2f}")
    say(f"results in {folder}")
