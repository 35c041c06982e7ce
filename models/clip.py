"""CLIP towers as a retrieval model: alone, with PIR's modules on their tokens, or as PriorCLIP (docs/clip.md)."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones import TimmModel, fix_batch_norm, timm_backbone
from models.clip_towers import (
    Pair,
    clip_resnet,
    freeze_towers,
    own_channels,
    picture_tokens,
    text_tokens,
    text_width,
    token_shape,
    tower_pair,
    towers,
)
from models.encoders import PICTURE_MEAN, PICTURE_STD, InstructionEncoder
from models.heads import LanguageCycle, VisionInstruction
from models.retrieval import RetrievalModel
from models.soft_belief import weighed_by_belief
from utils.clip_config import PRIOR
from utils.config import Config
from utils.errors import InputError

MAX_SCALE = math.log(100)  # of `logit_scale`, as CLIP was trained


class ClipModel(RetrievalModel):
    """A tower pair whose embeddings VIR and LCA may correct, as PIR's summaries; both corrections start at nothing.

    The pair's names in a checkpoint are open_clip's own. The temperature of both losses is its `logit_scale`.
    """

    scale: Tensor  # [3, 1, 1] as shift, where the pair's pictures are not normalised as CLIP's
    shift: Tensor

    def __init__(
        self, clip: Pair, instruction_encoder: InstructionEncoder | None, token_width: int, config: Config
    ) -> None:
        """instruction_encoder: the prior; None where the config has no VIR. token_width: of the picture's tokens."""
        super().__init__(config)
        self.init_params: list[str] = []
        c, dim = config, config.embed_dim
        self.clip = clip
        self.fixed_bn = c.vision_fixed_bn or "vision" in c.freeze
        if clip.logit_bias is not None and not self.sigmoid:
            clip.logit_bias.requires_grad_(False)  # no gradient reaches it, which a training in parallel waits for
        self.has_vir, self.has_lca = instruction_encoder is not None, c.has_lca
        if instruction_encoder is not None:
            self.instruction_encoder = instruction_encoder
            self.vision_proj = nn.Linear(token_width, dim)
            self.conv_proj = nn.Linear(instruction_encoder.width, dim)
            self.vision_instruction = VisionInstruction(
                dim, c.instru_num, c.filter_size, c.head, c.dropout_r, c.soft_belief
            )
        if c.has_lca:
            self.text_proj = nn.Linear(text_width(clip), dim)
            self.language_cycle = LanguageCycle(dim, c.cycle_num, c.head, c.dropout_r, cycle=c.lca_cycle)
        for branch in self.children():
            if c.zero_init_heads and isinstance(head := getattr(branch, "head", None), nn.Linear):
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)
        assert c.clip_model is not None
        if own := own_channels(c.clip_model, c.clip_config):  # pictures come in CLIP's normalisation
            mean, std = own
            self.register_buffer("scale", (torch.tensor(PICTURE_STD) / std)[:, None, None], persistent=False)
            shift = (torch.tensor(PICTURE_MEAN) - mean) / std
            self.register_buffer("shift", shift[:, None, None], persistent=False)
        self.own_channels = own is not None

    @property
    def logit_bias(self) -> Tensor:
        """Of the sigmoid loss, SigLIP's."""
        return self.clip.logit_bias

    def tower(self, name: str) -> nn.Module:
        """A pair's picture tower, or the blocks of its text tower."""
        return self.clip.visual if name == "vision" else towers(self.clip)[1]

    def fix_tower(self, name: str) -> None:
        """Have a tower not trained, with its embeddings and projection."""
        freeze_towers(self.clip, [name], None, None)

    def encoders(self) -> Iterator[nn.Module]:
        """Both towers' blocks, and the prior."""
        yield from (part for part in (*towers(self.clip), self._modules.get("instruction_encoder")) if part)

    def layers(self) -> Iterator[nn.Module]:
        """The blocks of both towers."""
        for tower in towers(self.clip):
            for stack in tower.modules():
                if isinstance(stack, nn.ModuleList):
                    yield from stack

    def temperatures(self) -> tuple[Tensor, Tensor]:
        """One for both losses, CLIP's: `logit_scale` is the logarithm of its inverse, from 0 to ln 100."""
        with torch.no_grad():
            self.clip.logit_scale.clamp_(0, MAX_SCALE)
        temp = (-self.clip.logit_scale).exp()
        return temp, temp

    def prepared(self, images: Tensor) -> Tensor:
        """From CLIP's normalisation to the pair's."""
        return torch.addcmul(self.shift, images, self.scale) if self.own_channels else images

    def encode_image(self, images: Tensor, prior: Tensor | None = None) -> Tensor:
        """Normalised pictures `[B, 3, H, W]` -> unit embeddings `[B, D]`; prior: of them, where it is there already."""
        embeds, tokens = picture_tokens(self.clip.visual, self.prepared(images))
        if self.has_vir:
            prior = self.instruction_encoder(images) if prior is None else prior
            instruction = self.conv_proj(prior).unsqueeze(1)  # [B, 1, D]
            embeds = embeds + self.vision_instruction(self.vision_proj(tokens), instruction)
        return F.normalize(embeds.float(), dim=-1)

    def encode_text(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Token ids `[B, L]` -> unit embeddings `[B, D]`; where a text ends its tokens say, so no mask counts."""
        embeds, tokens, mask = text_tokens(self.clip, ids)
        if self.has_lca:
            embeds = embeds + self.language_cycle(self.text_proj(tokens), mask)
        return F.normalize(embeds.float(), dim=-1)

    def train(self, mode: bool = True) -> "ClipModel":
        """Training mode; batch norm of a fixed picture tower, or with `fixed_bn`, keeps its running statistics."""
        super().train(mode)
        if self.fixed_bn:
            fix_batch_norm(self.clip.visual)
        return self


class PriorCLIP(ClipModel):
    """PIR's authors' sequel: what a CLIP ResNet sees weighs the ViT's tokens before its blocks, and goes before them.

    docs/behaviour.md, 8.
    """

    def __init__(self, clip: Pair, prior: TimmModel, config: Config) -> None:
        width = clip.visual.ln_post.normalized_shape[0]
        super().__init__(clip, None, width, config)
        self.soft_weight, self.belief_norm = config.soft_weight, config.belief_norm
        self.pooled = 0 if config.pool == "instruction" else 1
        self.prior_fixed = "prior" in config.freeze
        self.res_visual = prior
        self.vision_proj_res = nn.Linear(prior.num_features, width)

    def train(self, mode: bool = True) -> "PriorCLIP":
        """Training mode; a frozen prior's batch norm keeps its running statistics."""
        super().train(mode)
        if self.prior_fixed:
            self.res_visual.eval()
        return self

    def encode_image(self, images: Tensor, prior: Tensor | None = None) -> Tensor:
        """Normalised pictures `[B, 3, H, W]` -> unit embeddings `[B, D]`; prior: of them, where it is there already."""
        visual = self.clip.visual
        prior = self.res_visual(images.contiguous(memory_format=torch.channels_last)) if prior is None else prior
        instruction = self.vision_proj_res(prior).unsqueeze(1)  # [B, 1, width]
        tokens = weighed_by_belief(visual._embeds(images), instruction, self.soft_weight, self.belief_norm)
        x = visual.transformer(torch.cat([instruction, tokens], dim=1))  # [B, 1 + 1 + N, width]
        return F.normalize((visual.ln_post(x[:, self.pooled]) @ visual.proj).float(), dim=-1)


def build_clip(config: Config) -> ClipModel:
    """The model of a config with a `clip_model`, random weights.

    Raises InputError where sizes do not fit each other or a name is unknown.
    """
    c = config
    assert c.clip_model is not None
    clip = tower_pair(c.clip_model, c.clip_config, c.image_res)
    freeze_towers(clip, c.freeze, c.vision_trained_stages, c.text_trained_layers)
    if c.checkpoint_activations:
        clip.set_grad_checkpointing()
    if c.instruct == "before_blocks":
        prior = clip_resnet(c.prior_backbone, c.image_res, c.prior_width)
        return PriorCLIP(clip, prior.requires_grad_("prior" not in c.freeze), c)
    instruction_encoder, width = None, 0
    if c.has_vir:
        tokens, width = token_shape(clip.visual, c.image_res)
        if c.belief == "hard" and c.filter_size > tokens:
            raise InputError(f"'filter_size' {c.filter_size} is over the {tokens} picture tokens there are")
        instruction_encoder = InstructionEncoder(
            clip_resnet(c.prior_backbone, c.image_res, c.prior_width)
            if c.prior_backbone.startswith(PRIOR)
            else timm_backbone(c.prior_backbone, image_res=c.image_res, pooled=True),
            finetune=c.finetune_conv and "prior" not in c.freeze,
            batch_stats=c.prior_batch_stats,
            own_normalisation=c.prior_normalisation == "own",
        )
    model = ClipModel(clip, instruction_encoder, width, c)
    if c.optimizer.lr_mult_heads:
        encoders = ("clip.", "instruction_encoder.")
        model.init_params = [name for name, _ in model.named_parameters() if not name.startswith(encoders)]
    return model
