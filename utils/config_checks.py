"""What cannot work together in an experiment's config, found without building anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from utils.errors import shown
from utils.typed import Bounds, Positive, Repeats, Share, Width, read_value

if TYPE_CHECKING:
    from utils.config import Config

MAX_PICTURE_TOKENS = 50  # the summary and 7 x 7; a ViT's tokens past these are unused, as released
MOST_WEIGHTS = 20_000_000_000  # of an encoder: some of them fill the memory of any machine that trains one
# What the text encoder's keys are, where given; the other keys are left to transformers.
TEXT_SIZES: dict[str, Any] = {
    "hidden_size": Width,
    "intermediate_size": Width,
    "num_hidden_layers": Repeats,
    "num_attention_heads": Repeats,
    "vocab_size": Annotated[int, Bounds(at_least=1, at_most=10_000_000)],
    "max_position_embeddings": Annotated[int, Bounds(at_least=1, at_most=1_000_000)],
    "type_vocab_size": Width,
    "hidden_dropout_prob": Share,
    "attention_probs_dropout_prob": Share,
    "layer_norm_eps": Positive,
}


def impossible(c: Config) -> list[str]:
    """Choices and sizes that cannot work together, found without building anything."""
    problems = []
    if not c.train_file or not all(c.train_file):
        problems.append("'train_file' names no file")
    elif len({file.endswith(".tar") for file in c.train_file}) > 1:
        problems.append("train_file names both shards and annotation files; name one kind")
    if c.train_image_roots and len(c.train_image_roots) != len(c.train_file):
        problems.append(f"'train_image_roots' names {len(c.train_image_roots)} folders for {len(c.train_file)} files")
    if c.train_file and c.trains_from_shards and (c.train_image_roots or c.image_id == "by_path"):
        problems.append("'train_image_roots' and 'image_id' are for annotation files; shards hold their pictures")
    if c.use_affil_loss and c.use_triplet_loss:
        problems.append("use_affil_loss and use_triplet_loss exclude each other; set one of them to False")
    if c.is_baseline and c.use_tel:
        problems.append("is_baseline and use_tel exclude each other; set one of them to False")
    if (c.has_vir or c.has_lca or c.use_tel) and c.embed_dim % c.head:
        problems.append(f"'head' {c.head} does not divide 'embed_dim' {c.embed_dim}; choose heads that do")
    if c.deep_pictures != "refuse" or c.bands:
        from utils.picture_rule import impossible_rule

        problems += impossible_rule(c.deep_pictures, c.bands)
    if c.contrastive == "sigmoid" and c.clip_model is None:
        problems.append("contrastive sigmoid needs a model with a bias: a 'clip_model' of SigLIP's kind")
    if c.clip_model is not None or c.instruct == "before_blocks":
        from utils.clip_config import impossible_clip

        problems += impossible_clip(c)
    return problems + _impossible_text(c) + _impossible_pictures(c)


def _impossible_text(c: Config) -> list[str]:
    """Sizes of the text encoder; those that only some kinds have are left to transformers."""
    for name in ("vocab_size", "max_position_embeddings", "hidden_size", "num_attention_heads", "num_hidden_layers"):
        always = name in ("vocab_size", "max_position_embeddings")
        size = c.text_config.get(name, None if always else 1)
        if type(size) is not int or size < 1:
            return [f"'{name}' of text_config is {shown(size)}, expected a whole number of at least 1"]
    problems: list[str] = []
    for name in TEXT_SIZES.keys() & c.text_config.keys():
        read_value(c.text_config[name], TEXT_SIZES[name], f"text_config.{name}", problems)
    if problems:
        return sorted(problems)
    hidden, heads = c.text_config.get("hidden_size"), c.text_config.get("num_attention_heads")
    layers, words = c.text_config.get("num_hidden_layers", 1), c.text_config["vocab_size"]
    if hidden and (12 * layers * hidden + words) * hidden > MOST_WEIGHTS:
        problems.append(f"text_config describes over {MOST_WEIGHTS:,} weights")
    if hidden and heads and hidden % heads:
        problems.append(f"num_attention_heads {heads} does not divide hidden_size {hidden} in text_config")
    positions = c.text_config["max_position_embeddings"]
    if c.max_tokens > positions:
        problems.append(f"'max_tokens' {c.max_tokens} is over the {positions} positions of text_config")
    return problems


def _impossible_pictures(c: Config) -> list[str]:
    """Picture sizes against the encoder; a timm backbone's own tokens are counted when it is built."""
    sizes = c.vision_config
    if sizes.image_res not in (None, c.image_res):
        return [f"'image_res' {c.image_res} is not the {sizes.image_res} of vision_config"]
    if sizes.backbone or c.clip_model:
        return []
    if not sizes.depths:
        return ["vision_config: 'depths' must name at least one stage"]
    if c.use_swin:
        if len(sizes.depths) != len(sizes.num_heads):
            return ["depths and num_heads of vision_config name different numbers of stages"]
        widths = [sizes.embed_dim * 2**stage for stage in range(len(sizes.depths))]
        uneven = [f"{h} heads do not divide width {w}" for w, h in zip(widths, sizes.num_heads, strict=True) if w % h]
        if uneven:
            return [f"vision_config: {uneven[0]}"]
        if sizes.vision_width != widths[-1]:
            return [f"vision_config: vision_width {sizes.vision_width} is not the last stage's width {widths[-1]}"]
        if sum(12 * d * w**2 for d, w in zip(sizes.depths, widths, strict=True)) > MOST_WEIGHTS:
            return [f"vision_config describes over {MOST_WEIGHTS:,} weights"]
        stride = sizes.patch_size * 2 ** (len(sizes.depths) - 1)
    else:
        stride = c.patch_size
    if c.image_res % stride:
        return [f"'image_res' {c.image_res} is no multiple of the encoder's stride {stride}"]
    tokens = min(1 + (c.image_res // stride) ** 2, MAX_PICTURE_TOKENS)
    if c.has_vir and c.belief == "hard" and c.filter_size > tokens:
        return [f"'filter_size' {c.filter_size} is over the {tokens} picture tokens there are"]
    return []
