"""`clip_model`: a tower pair's sizes, from open_clip's own description of the model, and what does not go with one.

Neither torch nor open_clip is brought: the launcher reads a config before any process starts.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import InputError, shown
from utils.files import read_json

if TYPE_CHECKING:
    from utils.config import Config

ROOT = Path(__file__).resolve().parents[1]
PRIOR = "clip:"  # of a prior's backbone, before the name of a CLIP model with a ResNet


def clip_description(name: str) -> dict[str, Any]:
    """What open_clip's JSON file of a model, or one of your own in its form, says: `embed_dim` and both towers.

    Raises InputError where there is none, naming models of like names.
    """
    if name.endswith(".json"):
        found = [file for file in (Path(name), ROOT / name) if file.is_file()]
        if not found:
            raise InputError(f"clip_model {name} cannot be read (no such file); name a JSON file or open_clip's model")
        description = read_json(found[0])
    else:
        files = {file.stem: file for file in _folder().glob("*.json")}
        if name not in files:
            near = get_close_matches(name, files, n=5, cutoff=0.5)
            raise InputError(
                f"open_clip has no model {shown(name)}" + (f"; near it: {', '.join(near)}" if near else "")
            )
        description = read_json(files[name])
    parts = ("vision_cfg", "text_cfg")
    if not isinstance(description, dict) or not all(isinstance(description.get(part), dict) for part in parts):
        raise InputError(f"clip_model {name} is no description of a tower pair: it lacks vision_cfg or text_cfg")
    return description


def clip_names() -> list[str]:
    """The models that open_clip describes."""
    return sorted(file.stem for file in _folder().glob("*.json"))


def with_clip_sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config's values, with what its `clip_model` decides where they do not say it themselves."""
    name = values["clip_model"]
    if not isinstance(name, str):
        return dict(values)  # refused with all that is of the wrong kind
    description = values.get("clip_config") or clip_description(name)
    text = description["text_cfg"]
    context = text.get("context_length", 77)
    decided = {
        "image_res": description["vision_cfg"].get("image_size", 224),
        "embed_dim": description.get("embed_dim"),
        "max_tokens": context,
        "text_encoder": None,
        "resnet_ckpt": None,
        "zero_init_heads": True,
        "contrastive": "softmax" if description.get("init_logit_bias") is None else "sigmoid",
    }
    words = {"vocab_size": text.get("vocab_size", 49408), "max_position_embeddings": context}
    own = {"clip_config": description, "text_config": words, "vision_config": {}}  # the last has no part in it
    return {**decided, **values, **own}


def impossible_clip(c: Config) -> list[str]:
    """Keys that a tower pair does not go with."""
    if c.clip_model is None:
        return ["instruct before_blocks instructs a CLIP tower; name one with 'clip_model'"]
    description, problems = c.clip_config, []
    if c.embed_dim != description.get("embed_dim"):
        problems.append(f"'embed_dim' {c.embed_dim} is not the {description.get('embed_dim')} of {c.clip_model}")
    if c.text_encoder is not None:
        problems.append("'text_encoder' goes with no 'clip_model', which has its own; its start is 'clip_start'")
    if c.use_tel or c.use_triplet_loss:
        problems.append("use_tel and use_triplet_loss go with no 'clip_model'")
    if c.contrastive == "sigmoid" and description.get("init_logit_bias") is None:
        problems.append(f"contrastive sigmoid needs a model with a bias (SigLIP's), which {c.clip_model} has not")
    if c.instruct == "before_blocks":
        vision = description["vision_cfg"]
        if not isinstance(vision.get("layers", 12), int) or "timm_model_name" in vision:
            problems.append(f"instruct before_blocks needs a ViT of open_clip's own, which {c.clip_model} has not")
        if not c.prior_backbone.startswith(PRIOR):
            problems.append(f"instruct before_blocks needs a CLIP ResNet as prior_backbone, '{PRIOR}RN50'")
    return problems


def _folder() -> Path:
    """Where open_clip, installed but not imported, keeps its descriptions."""
    found = importlib.util.find_spec("open_clip")
    if found is None or not found.submodule_search_locations:
        raise InputError("a 'clip_model' needs the package open_clip_torch: pip install -r requirements.txt")
    return Path(next(iter(found.submodule_search_locations))) / "model_configs"
