"""Record the model's own numbers: `python -m tests.record` rewrites tests/recorded/core.json.

They hold the model to itself where the numbers recorded from the released code are not at hand. Record anew
only when a change of behaviour is meant, and look at what differs.
"""

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.pir import PIR
from models.released import released_name
from optim import create_optimizer
from scheduler import create_scheduler
from tests.tiny import captions, pictures, tiny_config, tiny_model, without_dropout
from utils.config import Config

FILE = Path(__file__).parent / "recorded" / "core.json"
STEPS = 8

# A higher learning rate than the published one, so that eight steps show.
LEARNING = {"optimizer": {"lr": 2e-4}, "schedular": {"num_warmup_steps": 2}}
CASES = {  # what differs from the small PIR
    "pir": {},
    "pir_other_switches": {"mask_padding": True, "same_class_negatives": False, "instru_num": 1, "filter_size": 10},
    "baseline_contrastive": {"is_baseline": True, "use_affil_loss": False},
    "vit_triplet": {
        "use_swin": False,
        "image_res": 128,
        "patch_size": 32,
        "filter_size": 12,
        "use_affil_loss": False,
        "use_triplet_loss": True,
    },
}


def record(name: str, folder: Path) -> dict[str, Any]:
    """All numbers of a case; its size files go to `folder`."""
    config = tiny_config(folder, **LEARNING, **CASES[name])
    model = without_dropout(tiny_model(config))
    images, ids = pictures(4, config.image_res), captions(4, 12)
    ids_and_labels = {"idx": torch.tensor([0, 0, 1, 2]), "label": torch.tensor([0, 1, 1, 2])}

    with torch.no_grad():
        embeds = {"image_embeds": model.encode_image(images), "text_embeds": model.encode_text(ids)}
    with torch.no_grad():  # a copy, whose batch norm statistics move
        in_training = copy.deepcopy(model).train()(images, ids, **ids_and_labels)
        in_training.pop("loss")
    losses = model(images, ids, **ids_and_labels)
    losses.pop("loss").backward()
    norms = {released_name(n): float(p.grad.norm()) for n, p in model.named_parameters() if p.grad is not None}
    return {
        **{key: rounded(values[:, :6]) for key, values in embeds.items()},
        "losses": {key: rounded(loss) for key, loss in losses.items()},
        "losses_in_training_mode": {key: rounded(loss) for key, loss in in_training.items()},
        "gradient_norm": rounded(torch.tensor(list(norms.values())).norm()),
        "gradient_norms": {key: rounded(torch.tensor(norms[key])) for key in chosen(norms)},
        "trajectory": trajectory(model, config, lambda: model(images, ids, **ids_and_labels)),
    }


def trajectory(model: PIR, config: Config, losses: Callable[[], dict[str, Tensor]]) -> list[list[float]]:
    """[learning rate, total loss] before each step, in evaluation mode."""
    optimizer = create_optimizer(config.optimizer, model)
    scheduler = create_scheduler(config.schedular, optimizer, steps_per_epoch=STEPS, epochs=1)
    steps = []
    for _ in range(STEPS):
        loss = losses()["loss"]
        steps.append([optimizer.param_groups[0]["lr"], rounded(loss)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return steps


def chosen(names: dict[str, float]) -> list[str]:
    """A few parameters of every part: the first and last of each, by the first word of the name."""
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(name.partition(".")[0], []).append(name)
    return sorted({part[end] for part in parts.values() for end in (0, -1)})


def rounded(values: Tensor) -> Any:
    """Plain numbers, with the digits that another machine's rounding leaves alone and two more."""
    return json.loads(json.dumps(values.double().tolist()), parse_float=lambda text: float(f"{float(text):.7g}"))


def main() -> None:
    """Record every case and write the file whole."""
    with tempfile.TemporaryDirectory() as folder:
        recorded = {name: record(name, Path(folder)) for name in CASES}
    FILE.parent.mkdir(exist_ok=True)
    beside = FILE.with_suffix(".partial")
    beside.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    beside.replace(FILE)
    print(f"{len(recorded)} cases, {FILE.stat().st_size / 1024:.0f} KiB: {FILE}")


if __name__ == "__main__":
    main()
