"""PIR: tokens -> embeddings -> losses; what run-time code calls (docs/behaviour.md, 1 to 3)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders import InstructionEncoder, TextEncoder, VisionEncoder
from models.heads import LanguageCycle, VisionInstruction
from models.losses import affiliation_loss, contrastive_loss
from utils.config import Config
from utils.config_checks import MAX_PICTURE_TOKENS
from utils.errors import InputError


class PIR(nn.Module):
    """Two verbs, `encode_image` and `encode_text`; called, it gives the losses of a batch."""

    common_stages: Any = None  # a CommonStages, where the picture encoder and its prior may have some

    def __init__(
        self,
        vision_encoder: VisionEncoder,
        instruction_encoder: InstructionEncoder | None,
        text_encoder: TextEncoder,
        config: Config,
    ) -> None:
        """instruction_encoder: the prior; None where the config has no VIR."""
        super().__init__()
        self.init_params: list[str] = []  # names that the optimizer's lr_mult reaches
        c, dim = config, config.embed_dim
        self.use_affil_loss, self.use_triplet_loss = c.use_affil_loss, c.use_triplet_loss
        self.max_violation = c.max_violation
        self.center_factor, self.clamp_temp = c.center_factor, c.clamp_temp
        self.gather_grad, self.center_scope = c.gather_grad, c.center_scope
        self.accumulate = c.accumulate
        self.same_class_negatives, self.same_sentence_positives = c.same_class_negatives, c.same_sentence_positives

        if not c.use_triplet_loss:
            self.temp = nn.Parameter(torch.tensor(c.temp1))
        if c.use_affil_loss:
            self.temp2 = nn.Parameter(torch.tensor(c.temp2))
        self.vision_encoder = vision_encoder
        self.text_encoder = text_encoder
        self.vision_proj = nn.Linear(vision_encoder.width, dim)
        self.text_proj = nn.Linear(text_encoder.width, dim)
        self.has_vir, self.has_lca, self.use_tel = instruction_encoder is not None, c.has_lca, c.use_tel
        if instruction_encoder is not None:
            self.instruction_encoder = instruction_encoder
            self.conv_proj = nn.Linear(instruction_encoder.width, dim)
            self.vision_instruction = VisionInstruction(dim, c.instru_num, c.filter_size, c.head, c.dropout_r)
        if c.has_lca:
            self.language_cycle = LanguageCycle(dim, c.cycle_num, c.head, c.dropout_r, cycle=c.lca_cycle)
        if c.use_tel:
            from models.baselines import EncoderLayer  # as the triplet loss below, of a table's other rows

            self.vision_layer = EncoderLayer(dim, c.head, c.dropout_r)
            self.text_layer = EncoderLayer(dim, c.head, c.dropout_r)
        if c.zero_init_heads:
            for branch in self.children():
                if isinstance(head := getattr(branch, "head", None), nn.Linear):
                    nn.init.zeros_(head.weight)
                    nn.init.zeros_(head.bias)

    def encode_image(self, images: Tensor, prior: Tensor | None = None) -> Tensor:
        """Normalised pictures `[B, 3, H, W]` -> unit embeddings `[B, D]`; prior: of them, where it is there already."""
        if self.common_stages and prior is None:
            tokens, prior = self.common_stages(self.vision_encoder, self.instruction_encoder, images)
        else:
            tokens = self.vision_encoder(images)
        tokens = self.vision_proj(tokens)[:, :MAX_PICTURE_TOKENS]  # [B, 50, D]
        summary = tokens[:, 0]
        if self.has_vir:
            prior = self.instruction_encoder(images) if prior is None else prior
            instruction = self.conv_proj(prior).unsqueeze(1)  # [B, 1, D]
            summary = summary + self.vision_instruction(tokens, instruction)
        if self.use_tel:
            summary = summary + self.vision_layer(tokens)
        return F.normalize(summary.float(), dim=-1)

    def encode_text(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Token ids `[B, L]` -> unit embeddings `[B, D]`.

        attention_mask `[B, L]`, 1 where a token is; it counts only with `mask_padding` (see `TextEncoder`).
        """
        tokens, mask = self.text_encoder(ids, attention_mask)
        tokens = self.text_proj(tokens)  # [B, L, D]
        summary = self.text_encoder.summary(tokens, mask)
        if self.has_lca:
            summary = summary + self.language_cycle(tokens, mask)
        if self.use_tel:
            summary = summary + self.text_layer(tokens, mask)
        return F.normalize(summary.float(), dim=-1)

    def forward(
        self,
        images: Tensor,
        ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        idx: Tensor | None = None,
        label: Tensor | None = None,
        sentence: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch, named as released: `loss_contr`, `loss_affil`, `loss_triplet` as configured.

        `loss` among them is what is minimised: triplet alone, or contrastive plus `center_factor` times affiliation.

        images `[B, 3, H, W]`; ids `[k * B, L]`, k captions a picture, one picture's side by side;
        idx, label and sentence `[k * B]`: picture ids, scene classes, and a number a sentence.
        """
        if self.accumulate > 1:
            from models.pieces import embedded_in_pieces  # for those whose memory is short

            v, t = embedded_in_pieces(self, images, ids, attention_mask)
        else:
            v, t = self.encode_image(images), self.encode_text(ids, attention_mask)
        v = v.repeat_interleave(len(t) // len(v), dim=0)  # [k * B, D]
        with torch.autocast(v.device.type, enabled=False):  # similarities of a low precision mix up near ones
            if self.use_triplet_loss:
                from models.baselines import triplet_loss

                loss = triplet_loss(v, t, hardest=self.max_violation, gather_grad=self.gather_grad)
                return {"loss_triplet": loss, "loss": loss}
            said = sentence if self.same_sentence_positives else None
            contrastive = contrastive_loss(v, t, self._clamped(self.temp), idx, said, gather_grad=self.gather_grad)
            losses = {"loss_contr": contrastive, "loss": contrastive}
            if self.use_affil_loss:
                assert label is not None  # a train set without labels is refused where this loss is used
                losses["loss_affil"] = affiliation_loss(
                    v,
                    t,
                    label,
                    self._clamped(self.temp2),
                    center_scope=self.center_scope,
                    same_class_negatives=self.same_class_negatives,
                    gather_grad=self.gather_grad,
                )
                losses["loss"] = contrastive + self.center_factor * losses["loss_affil"]
        return losses

    def _clamped(self, temp: Tensor) -> Tensor:
        """The temperature, with `clamp_temp` held within X-VLM's range."""
        if self.clamp_temp:
            with torch.no_grad():
                temp.clamp_(0.001, 0.5)
        return temp


def check_filter(config: Config, tokens: int) -> None:
    """Raise InputError where VIR would keep more tokens than the picture encoder gives."""
    if config.has_vir and config.filter_size > min(tokens, MAX_PICTURE_TOKENS):
        raise InputError(f"'filter_size' {config.filter_size} is over the {tokens} picture tokens there are")
