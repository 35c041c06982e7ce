"""The YAML of a training of a few seconds on drawn scenes."""

from pathlib import Path

import yaml

from dataset.drawn.scenes import draw_scenes
from tests.tiny import TEXT


def write_experiment(folder: Path, *, epochs: int, val: int = 4, test: int = 4, **changes: object) -> Path:
    """Draws its pictures, 8 to train on, to `folder`, and writes the file there; changes: of the config's values."""
    draw_scenes(folder / "scenes", train=8, val=val, test=test, size=32)
    values = {
        **{f"{split}_file": str(folder / f"scenes/scenes_{split}.json") for split in ("train", "val", "test")},
        "image_root": str(folder / "scenes"),
        "tokenizer": str(folder / "scenes"),
        "text_encoder": None,
        "resnet_ckpt": None,
        "vision_config": {"vision_width": 32, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2},
        "text_config": TEXT | {"vocab_size": 512, "num_hidden_layers": 1},
        "image_res": 32,
        "embed_dim": 16,
        "head": 2,
        "num_workers": 0,
        "select_on": "val",
        "schedular": {"epochs": epochs},
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(values | changes))
    return file
