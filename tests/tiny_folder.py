"""A trained model's folder of the small sizes, and pictures to search in."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataset.drawn.scenes import vocabulary
from models.released import released_state_dict
from tests.tiny import tiny_config, tiny_model
from utils.checkpoint import save_checkpoint
from utils.typed import write_yaml

SIZES = {"model_type": "bert", "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
SIZES |= {"num_hidden_layers": 1, "max_position_embeddings": 64, "vocab_size": 512}


def write_model(folder: Path, **changes: object) -> Path:
    """A folder as a run leaves it, with its vocabulary beside; the weights are made from their names."""
    words = folder / "words"
    words.mkdir(parents=True)
    (words / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    config = tiny_config(folder, **{"tokenizer": str(words), "text_config": SIZES, "mask_padding": True} | changes)
    save_checkpoint(folder / "checkpoint_best.pth", released_state_dict(tiny_model(config)), config.to_dict())
    write_yaml(config.to_dict(), folder / "config.yaml")
    return folder


def picture(seed: int, height: int = 64, width: int = 64) -> np.ndarray:
    """A coarse pattern of its own, uint8 `[H, W, 3]`."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST))


def write_pictures(folder: Path, count: int) -> list[Path]:
    """`count` pictures, 0.png, 1.png ..., each of its own pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number}.png" for number in range(count)]
    for number, file in enumerate(files):
        Image.fromarray(picture(number)).save(file)
    return files
