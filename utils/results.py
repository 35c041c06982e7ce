"""What an evaluation leaves: figures, and for tables and plots each query's rank and the embeddings.

Those are compressed arrays without pickles, written whole or not at all, for `np.load(file, allow_pickle=False)`.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from utils import output, processes
from utils.config import Config
from utils.cost import card_settings, count_parameters, library_versions, peak_memory
from utils.earlier import keep_evaluation
from utils.examples import draw_examples
from utils.files import write_whole
from utils.logs import say, write_json
from utils.metrics import Measured
from utils.output import EMBEDDINGS, RANKS
from utils.train_state import TrainState
from utils.training import Run


def write_result(
    run: Run[Config],
    model: nn.Module,
    measured: Measured,
    test_set: Any,
    load: Callable[[str], np.ndarray],
    state: TrainState | None,
    weights_sha256: str,
) -> None:
    """Write what an evaluation leaves, `result.json` last, which says that it is all there; print the figures.

    test_set: what was measured on, a `dataset.annotations.EvaluationSet`; load: a picture's pixels `[H, W, 3]` by its
    name; state: of a training, None for an evaluation alone.
    """
    memory = peak_memory(run.device)
    if not processes.is_main():
        return
    if state is None:
        keep_evaluation(run)
    write_arrays(
        run.output_dir,
        measured,
        own_image_of_text=test_set.own_image_of_text,
        names=test_set.names,
        labels=test_set.labels,
        label_names=test_set.label_names,
    )
    draw_examples(
        run.output_dir / output.EXAMPLES,
        images=test_set.images,
        captions=test_set.captions,
        own_image_of_text=test_set.own_image_of_text,
        image_embeds=measured.image_embeds.cpu(),
        text_embeds=measured.text_embeds.cpu(),
        load=load,
        title=f"test split, r_mean {measured.figures['r_mean']:.2f}",
    )
    result = {
        **measured.figures,
        "split": "test",
        "test_file": run.config.test_file,
        "pictures": len(test_set.images),
        "captions": len(test_set.captions),
        "epoch": state.best_epoch if state else None,
        "weights_sha256": weights_sha256,
        "seed": run.seed,
        "processes": processes.world_size(),
        "batch_size": run.config.batch_size_train * processes.world_size(),
        "parameters": count_parameters(model),
        "train_seconds": round(state.seconds, 2) if state else None,
        "peak_memory_bytes": memory,
        "config": run.config.to_dict(),
        "cuda": card_settings(run.device),
        "versions": library_versions(),
    }
    write_json(run.output_dir / output.RESULT, result)
    say("test: " + ", ".join(f"{name} {value:.2f}" for name, value in measured.figures.items()))
    say(f"results in {run.output_dir}")


def write_arrays(
    folder: Path,
    measured: Measured,
    *,
    own_image_of_text: Sequence[int],
    names: Sequence[str],
    labels: Sequence[int] | None,
    label_names: Sequence[str] | None,
) -> None:
    """Write `ranks.npz` and `embeddings.npz`, the embeddings in half precision.

    own_image_of_text: T picture numbers; names: the I pictures as the annotation file names them; labels and
    label_names: their I scenes, where they are known.
    """
    pictures = {"own_image_of_text": np.array(own_image_of_text, np.int32), "images": np.array(names, np.str_)}
    ranks = {"image_to_text": measured.text_rank, "text_to_image": measured.image_rank}
    embeds = {"image_embeds": measured.image_embeds, "text_embeds": measured.text_embeds}
    scenes = {}
    if labels is not None:
        scenes["label"] = np.array(labels, np.int32 if max(map(abs, labels)) < 2**31 else np.int64)
    if label_names is not None:
        scenes["label_name"] = np.array(label_names, np.str_)
    as_numbers = {name: values.cpu().numpy().astype(np.int32) for name, values in ranks.items()}
    halved = {name: values.cpu().half().numpy() for name, values in embeds.items()}
    write_whole(folder / RANKS, _compressed(as_numbers | pictures))
    write_whole(folder / EMBEDDINGS, _compressed(halved | pictures | scenes))


def _compressed(arrays: dict[str, np.ndarray]) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()
