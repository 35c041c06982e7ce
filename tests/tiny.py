"""Small models, weights and inputs that are the same on every machine, made from names alone."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models import build_model
from models.pir import PIR
from models.released import DERIVED, load_released, released_state_dict
from utils.config import Config, config_from_dict

# Three stages of a Swin on pictures of 112: 28 x 28, 14 x 14 (shifted windows in both) and 7 x 7 tokens.
VISION = {"vision_width": 64, "embed_dim": 16, "depths": [2, 2, 2], "num_heads": [1, 2, 4]}
TEXT = {
    "model_type": "bert",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "vocab_size": 200,
}
CLS, SEP = 1, 2
FILES = {"train_file": ["train.json"], "val_file": "val.json", "test_file": "test.json", "image_root": "images"}
SIZES = {"image_res": 112, "embed_dim": 32, "head": 4, "max_tokens": 24}


def tiny_config(folder: Path, **changes: object) -> Config:
    """A config of the small sizes, whose two JSON files are written to `folder`."""
    named = {}
    for key, sizes in (("vision_config", VISION), ("text_config", TEXT)):
        file = folder / f"{key}.json"
        file.write_text(json.dumps(sizes), encoding="utf-8")
        named[key] = str(file)
    return config_from_dict(FILES | SIZES | named | changes)


def tiny_model(config: Config) -> PIR:
    """The model of a config in evaluation mode, its weights made from their released names."""
    model = build_model(config)
    names = released_state_dict(model)
    load_released(model, {n: weight(n, t.shape) for n, t in names.items() if n.rsplit(".", 1)[-1] not in DERIVED})
    return model.eval()


def without_dropout(model: nn.Module) -> nn.Module:
    """The model with every dropout and drop path at 0, so that training mode is deterministic."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("drop_prob", "dropout"):  # timm's DropPath, our attention
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def uniform(name: str, shape: tuple[int, ...]) -> Tensor:
    """Float32 values in [-1, 1). From PCG64's raw stream, which is specified; nobody's normal numbers are."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(math.prod(shape))
    return torch.from_numpy(((raw >> 40) / 2.0**23 - 1).astype(np.float32)).reshape(shape)


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The value of the parameter or buffer of that released name: about unit gain through every layer."""
    leaf, values = name.rsplit(".", 1)[-1], uniform(name, shape)
    if name in ("temp", "temp2"):
        return torch.tensor(0.07)
    if leaf == "num_batches_tracked":
        return torch.tensor(0)
    if leaf in ("bias", "running_mean"):
        return 0.1 * values
    if len(shape) == 1:  # the weights of norms, running variances
        return 1 + 0.3 * values
    if leaf == "weight" and "embeddings" not in name:
        return values * math.sqrt(3 / math.prod(shape[1:]))
    return values  # tables of embeddings and positions


def pictures(count: int, size: int) -> Tensor:
    """Smooth pictures in the normalised range, `[count, 3, size, size]`."""
    patches = 2 * uniform("pictures", (count, 3, 8, 8))
    return torch.kron(patches, torch.ones(size // 8, size // 8)) + 0.2 * uniform("grain", (count, 3, size, size))


def captions(count: int, length: int) -> Tensor:
    """Token ids `[count, length]`: [CLS], words, [SEP], padding; the first is the longest."""
    words = (3 + (uniform("words", (count, length)) + 1) / 2 * (TEXT["vocab_size"] - 3)).long()
    words[:, 0] = CLS
    for row, ids in enumerate(words):
        end = length - 1 - row % (length // 2)
        ids[end], ids[end + 1 :] = SEP, 0
    return words
