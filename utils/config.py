"""YAML -> one typed, checked, immutable config. Read once; each part is given the values it needs.

The keys of the released YAMLs keep their names (`schedular` too) and what is not said keeps the released
behaviour. No torch here: the launcher reads a config before any process starts.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from utils.config_checks import impossible
from utils.config_parts import LoraSettings, OptimizerConfig, ScenesConfig, SchedularConfig, VisionSizes
from utils.errors import InputError, listed
from utils.files import read_json
from utils.output import BEST, CONFIG, EXPORTED_CONFIG
from utils.typed import (
    Count,
    FewOrNone,
    NotNegative,
    Positive,
    Precision,
    Repeats,
    Share,
    Whole,
    Width,
    apply_override,
    read_based_yaml,
    read_fields,
    read_value,
)

ROOT = Path(__file__).resolve().parents[1]
RELEASED_VIT_START = "data/deit_small_patch16_224-cd65a155.pth"
# Where a YAML names no file of sizes, nor gives them itself.
SIZE_FILES = {"vision_config": "configs/config_swinT_224.json", "text_config": "configs/config_bert.json"}


@dataclass(frozen=True)
class Config:
    """One experiment. Paths are relative to the folder the program runs in."""

    # Data
    train_file: tuple[str, ...]
    val_file: str
    test_file: str
    image_root: str
    train_image_roots: tuple[str, ...] | None = None  # a folder a training file; null: image_root for all
    image_id: Literal["as_given", "by_path"] = "as_given"  # what tells pictures apart in the training files
    deep_pictures: str = "refuse"  # more than 8 bits a channel: refuse, minmax, percentile LOW-HIGH, divide NUMBER
    bands: tuple[Count, ...] | None = None  # the three to read as red, green and blue, from 1; null: the first three
    on_bad_picture: Literal["stop", "skip"] = "stop"  # a training picture that cannot be read
    scenes: ScenesConfig | None = None
    image_res: Width = 224
    max_tokens: Count = 47
    batch_size_train: Count = 128  # pictures (with captions_per_image 1: captions) per process
    accumulate: Count = 1  # pieces in which a training batch is embedded, with the memory of one
    checkpoint_activations: bool = False  # the encoders' are computed again for the gradient, not kept
    shard: bool = False  # --shard: the model divided among the processes, not whole on each
    batch_size_test: Count = 128
    batch_size_test_text: Count = 128
    captions_per_image: Repeats = 1  # above 1 an epoch passes over pictures, each with this many captions
    randaugment_ops: FewOrNone = 2
    quarter_turns: bool = False
    num_workers: FewOrNone = 4
    average_orientations: bool = False  # the final measure sees a picture in all eight: aerial ones have no up
    k_test: Whole = 512  # of the released YAMLs; nothing reads it, here as there

    # Encoders, their sizes (in a YAML a JSON file's name, or the sizes themselves) and starts (null: random weights)
    vision_config: VisionSizes = field(default_factory=VisionSizes)
    use_swin: bool = True
    patch_size: Width = 32
    vision_trained_stages: Count | None = None  # the last so many stages of a timm backbone; null: all
    vision_fixed_bn: bool = False
    prior_backbone: str = "resnet50"
    prior_normalisation: Literal["clip", "own"] = "clip"  # of its pictures; see `usual_normalisation`
    resnet_ckpt: str | None = "data/aid_28-rsp-resnet-50-ckpt.pth"
    finetune_conv: bool = False
    text_config: Mapping[str, Any] = field(default_factory=dict)
    text_encoder: str | None = "data/bert-base-uncased"
    text_trained_layers: Count | None = None  # its last so many layers, without the embeddings; null: all
    text_summary: Literal["first", "mean"] = "first"  # the token a caption is summed up in, or the mean of all
    tokenizer: str | None = None  # a folder with a vocabulary; null: that of text_encoder

    # Heads
    is_baseline: bool = False  # neither VIR nor LCA, whatever the next two say
    use_vir: bool = True
    use_lca: bool = True
    lca_cycle: bool = True  # False: LCA's units are not activated by the step before, only by their own attention
    use_tel: bool = False  # a plain transformer encoder layer on each side, in place of VIR and LCA
    embed_dim: Width = 512
    filter_size: Width = 40
    instru_num: Repeats = 2
    cycle_num: Repeats = 3
    head: Repeats = 8
    dropout_r: Share = 0.2
    zero_init_heads: bool = False  # the two branches start at nothing, and grow

    # A CLIP tower pair in place of the picture and the text encoder, with or without the heads (docs/clip.md)
    clip_model: str | None = None  # open_clip's name, or a JSON file of sizes as open_clip has them
    clip_config: Mapping[str, Any] = field(default_factory=dict)  # the sizes; empty: looked up by that name
    clip_start: str | None = None  # its weights; null: random ones
    instruct: Literal["tokens", "before_blocks"] = "tokens"  # VIR over the tower's tokens, or as PriorCLIP does
    belief: Literal["hard", "soft"] = "hard"  # the prior has VIR keep `filter_size` tokens, or weighs all
    soft_weight: Literal["released", "rank", "belief"] = "released"
    belief_norm: Literal["tokens", "channels", "none"] = "tokens"
    pool: Literal["instruction", "class"] = "instruction"  # the token that before_blocks takes for the picture
    prior_width: Width | None = None  # of a CLIP ResNet's embedding, as prior (`clip:RN50`); null: its own
    freeze: tuple[Literal["vision", "text", "prior"], ...] = ()  # encoders that are not trained
    lora: LoraSettings | None = None  # adapters on the encoders

    # Losses
    temp1: Positive = 0.07
    temp2: Positive = 0.07
    use_affil_loss: bool = True
    use_triplet_loss: bool = False
    max_violation: bool = False  # of the triplet loss: the hardest violation of each row and column, not all
    center_factor: NotNegative = 1.0
    contrastive: Literal["softmax", "sigmoid"] = "softmax"  # sigmoid: SigLIP's, each pair by itself
    positives: Literal["picture", "pair"] = "picture"  # captions of one picture are all its own, or one is
    center_choice: Literal["caption", "center"] = "caption"  # an image centre chooses captions; a caption, centres
    same_sentence_positives: bool = False  # a caption that other pictures have too, word for word, is theirs as well

    # Flaws of the released code; the defaults are the released behaviour
    mask_padding: bool = False
    prior_batch_stats: bool = True  # the frozen prior's batch norm in training mode
    select_on: Literal["test", "val"] = "test"
    gather_grad: Literal["local", "full"] = "local"
    same_class_negatives: bool = True
    center_scope: Literal["process", "global"] = "process"
    clamp_temp: bool = False

    # Optimisation
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedular: SchedularConfig = field(default_factory=SchedularConfig)
    average_decay: Share = 0.0  # exponential average of the weights, kept for evaluation; 0: none
    precision: Precision = "float32"  # auto: bf16 where the processor has it; fp32: without the TF32 of cards
    compile: bool = False  # the encoders, by torch's compiler

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML, JSON and checkpoints, as a released YAML has them, the encoders' sizes among them."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @property
    def has_vir(self) -> bool:
        """Whether the picture side has Vision Instruction Representation, and with it a prior."""
        return self.use_vir and self.instruct == "tokens" and not (self.is_baseline or self.use_tel)

    @property
    def has_lca(self) -> bool:
        """Whether the text side has Language Cycle Attention."""
        return self.use_lca and self.instruct == "tokens" and not (self.is_baseline or self.use_tel)

    @property
    def soft_belief(self) -> tuple[str, str] | None:
        """How belief weighs tokens and what is then normed; None where it keeps some."""
        return (self.soft_weight, self.belief_norm) if self.belief == "soft" else None

    @property
    def trains_from_shards(self) -> bool:
        """Whether `train_file` names tar shards, not annotation files."""
        return self.train_file[0].endswith(".tar")

    @property
    def training_files(self) -> dict[str, Any]:
        """The arguments by which `read_train` reads the training files."""
        return {
            "files": self.train_file,
            "image_root": self.image_root,
            "image_roots": self.train_image_roots,
            "ids_by_path": self.image_id == "by_path",
            "labels_required": self.use_affil_loss,
        }

    @property
    def tokenizer_folder(self) -> str | None:
        """Where the vocabulary is."""
        return self.tokenizer or self.text_encoder

    @property
    def encoder_starts(self) -> list[str]:
        """What the encoders start from, as the config names it."""
        prior = self.resnet_ckpt if self.has_vir or self.instruct == "before_blocks" else None
        return [name for name in (self.clip_start, self.vision_start, prior, self.text_encoder) if name]

    @property
    def vision_start(self) -> str | None:
        """The picture encoder's start file; the released ViT has its own, fixed one."""
        if self.clip_model:
            return None
        if self.use_swin or self.vision_config.backbone:
            return self.vision_config.ckpt
        return RELEASED_VIT_START


def config_from_file(file: str | Path, overrides: list[str] | None = None) -> Config:
    """Read a YAML file and `key=value` overrides (dotted for nested keys) into a config.

    Raises InputError in one line for a missing or broken file, an unknown key, a value of the wrong kind. Of a config
    that came with a checkpoint unknown keys are another program's: they are left aside, with a warning.
    """
    if Path(file).name == EXPORTED_CONFIG:
        from utils.exported import config_values  # a folder in Hugging Face's style, which few are

        values = config_values(file)
    else:
        values = read_based_yaml(file)
    if Path(file).name == CONFIG and Path(file).with_name(BEST).exists():
        from utils.exported import known_values

        values = known_values(values, Config, {"optimizer": OptimizerConfig, "schedular": SchedularConfig}, file)
    for override in overrides or []:
        key = override.partition(".")[0]
        if key in SIZE_FILES and isinstance(named := values.get(key, SIZE_FILES[key]), str):
            values[key] = _sizes_in(named, key)  # so that one size can be overridden, `text_config.hidden_size=8`
        apply_override(values, override)
        if key == "clip_model":
            values.pop("clip_config", None)  # of another model
    return config_from_dict(values)


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """Plain values (a released YAML's) to a typed, checked, immutable config.

    `vision_config` and `text_config` name JSON files or hold what such a file would. Raises InputError naming every
    unknown key (with the nearest known one), wrong kind and impossible size, counted, the first five shown.
    """
    known = dict(values)
    if known.get("clip_model"):
        from utils.clip_config import with_clip_sizes  # for those who have one

        known = with_clip_sizes(known)
    sizes = {key: known.pop(key, file) for key, file in SIZE_FILES.items()}
    if isinstance(known.get("train_file"), str):
        known["train_file"] = [known["train_file"]]
    problems: list[str] = []
    read = read_fields(Config, known, "", problems)
    if not problems:
        sizes = {key: _sizes_in(value, key) if isinstance(value, str) else value for key, value in sizes.items()}
        read["vision_config"] = read_value(sizes["vision_config"], VisionSizes, "vision_config", problems)
        read["text_config"] = read_value(sizes["text_config"], Mapping[str, Any], "text_config", problems)
        read.setdefault("prior_normalisation", usual_normalisation(read.get("prior_backbone", Config.prior_backbone)))
    if not problems:
        config = Config(**read)
        problems = impossible(config)
    if problems:
        raise InputError(f"config: {listed(problems)}")
    return config


def usual_normalisation(backbone: str) -> Literal["clip", "own"]:
    """What a prior's pictures get where a config does not say: a backbone's own, as it was pretrained.

    But for the released ResNet-50, which was trained and recorded in CLIP's, and CLIP's own.
    """
    return "clip" if backbone == "resnet50" or backbone.startswith("clip:") else "own"


def _sizes_in(file: str, key: str) -> dict[str, Any]:
    """The sizes in a JSON file, of the current folder or else of this project, where a published config means it."""
    if not Path(file).is_file() and (ROOT / file).is_file():
        file = str(ROOT / file)
    if not Path(file).is_file():
        raise InputError(f"{key} {file} cannot be read (no such file); name an existing JSON file")
    sizes = read_json(file)
    if not isinstance(sizes, dict):
        raise InputError(f"{key} {file} holds no keys; expected a JSON object of sizes")
    return sizes


def process_batch(batch_size_train: int, global_batch: int | None, processes: int) -> int:
    """The batch of one process: the config's, or its share of `--bs`, which is over all processes."""
    if global_batch is None:
        return batch_size_train
    if global_batch < 1:
        raise InputError(f"--bs {global_batch} is not a batch size: give 1 or more")
    if global_batch % processes:
        below = global_batch - global_batch % processes
        fitting = f"{below} or {below + processes}" if below else str(processes)
        raise InputError(
            f"--bs {global_batch}, the global batch, does not divide by {processes} processes: try {fitting}"
        )
    return global_batch // processes


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
