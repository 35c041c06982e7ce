"""The parts of an experiment's config that are mappings of their own."""

from dataclasses import dataclass
from typing import Annotated, Literal

from utils.typed import Bounds, Count, NotNegative, Positive, Repeats, Share, Whole, WholeFromZero, Width


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (docs/behaviour.md, 4)."""

    opt: Literal["adamW"] = "adamW"
    lr: Positive = 6e-5
    weight_decay: NotNegative = 0.01
    lr_mult: float = 2.0
    lr_mult_heads: bool = False  # whether lr_mult reaches what is not in an encoder (released: nothing)
    betas: tuple[Share, Share] = (0.9, 0.98)
    decay: Literal["released", "matrices"] = "released"  # matrices: what has one dimension or none does not decay
    clip_grad_norm: NotNegative = 0.0  # the most length of a step's gradient; 0: any
    layer_decay: Annotated[float, Bounds(above=0, at_most=1)] = 1.0  # of the rate, from each block to the one before


@dataclass(frozen=True)
class SchedularConfig:
    """Warm-up and decay (docs/behaviour.md, 4); the misspelling is the released key."""

    sched: Literal["linear", "cosine"] = "linear"
    lr: float = 6e-5  # unused, as released: the optimizer's counts
    epochs: Count = 50
    num_warmup_steps: NotNegative = 0.1  # a fraction below 1, or a count of steps


@dataclass(frozen=True)
class VisionSizes:
    """`vision_config`: Swin's sizes as released, or `backbone`, any timm model, with its `ckpt`."""

    ckpt: str | None = None  # weights to start from; null: random ones
    vision_width: Width = 768
    image_res: Width | None = None  # where given, it must be the experiment's
    window_size: Repeats = 7
    patch_size: Repeats = 4
    embed_dim: Width = 96
    depths: tuple[Repeats, ...] = (2, 2, 6, 2)
    num_heads: tuple[Repeats, ...] = (3, 6, 12, 24)
    backbone: str | None = None


@dataclass(frozen=True)
class ScenesConfig:
    """The drawn data set of the demo, made before training where `folder` lacks it."""

    folder: str
    seed: Whole = 0
    train: WholeFromZero = 1200
    val: WholeFromZero = 150
    test: WholeFromZero = 200
    size: Width = 112


@dataclass(frozen=True)
class LoraSettings:
    """Adapters on frozen towers (docs/adapters.md)."""

    towers: tuple[Literal["vision", "text"], ...] = ("vision", "text")
    rank: Repeats = 8
    alpha: Count = 16  # what an adapter adds is times alpha / rank
    dropout: Share = 0.0
    targets: tuple[str, ...] = ()  # ends of layers' names; none: the linear layers and attentions of all blocks
    checkpoint: Literal["merged", "adapter"] = "merged"
