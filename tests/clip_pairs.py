"""Small CLIP tower pairs of each kind that open_clip has, as JSON files of sizes."""

import json
from pathlib import Path

from utils.config import Config, config_from_dict

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
SIGLIP_TEXT = TEXT | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
PAIRS = {
    "vit": {"vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 32}},
    "vit_16": {"vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}},
    "quick": {
        "vision_cfg": {"image_size": 64, "layers": 3, "width": 64, "head_width": 32, "patch_size": 16},
        "quick_gelu": True,
    },
    "resnet": {"vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}},
    "convnext": {
        "vision_cfg": {"image_size": 64, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"},
    },
    "siglip": {
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": SIGLIP_TEXT | {"width": 64},
        "embed_dim": 64,
        "preprocess": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    },
}
FILES = {"train_file": ["train.json"], "val_file": "val.json", "test_file": "test.json", "image_root": "images"}


def pair_file(folder: Path, kind: str) -> Path:
    """The JSON file of a kind of pair, written to `folder`."""
    file = folder / f"{kind}.json"
    file.write_text(json.dumps({"embed_dim": 32, "text_cfg": TEXT} | PAIRS[kind]), encoding="utf-8")
    return file


def clip_config(folder: Path, kind: str, **changes: object) -> Config:
    """A config of plain fine-tuning of a kind of pair, as `configs/Retrieval_rsicd_clip.yaml`, with `changes`."""
    plain = {"is_baseline": True, "use_affil_loss": False, "gather_grad": "full", "head": 4, "filter_size": 4}
    return config_from_dict(FILES | plain | {"clip_model": str(pair_file(folder, kind))} | changes)
