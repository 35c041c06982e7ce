"""PIR: tokens -> embeddings (docs/behaviour.md, 1 and 2)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders import InstructionEncoder, TextEncoder, VisionEncoder
from models.heads import LanguageCycle, VisionInstruction
from models.retrieval import RetrievalModel
from utils.config import Config
from utils.config_checks import MAX_PICTURE_TOKENS
from utils.errors import InputError


class PIR(RetrievalModel):
    """Encoders of pictures and of captions, each corrected by its head, VIR under the prior's instruction and LCA."""

    def __init__(
        self,
        vision_encoder: VisionEncoder,
        instruction_encoder: InstructionEncoder | None,
        text_encoder: TextEncoder,
        config: Config,
    ) -> None:
        """instruction_encoder: the prior; None where the config has no VIR."""
        super().__init__(config)
        self.init_params: list[str] = []  # names that the optimizer's lr_mult reaches
        c, dim = config, config.embed_dim
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
            self.vision_instruction = VisionInstruction(
                dim, c.instru_num, c.filter_size, c.head, c.dropout_r, c.soft_belief
            )
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

    def tower(self, name: str) -> nn.Module:
        """Its backbone."""
        return self.vision_encoder.backbone if name == "vision" else self.text_encoder.backbone

    def encoders(self) -> Iterator[nn.Module]:
        """Those of pictures and of captions, and the prior."""
        yield from (self.vision_encoder, self.text_encoder)
        if self.has_vir:
            yield self.instruction_encoder

    def layers(self) -> Iterator[nn.Module]:
        """Stages and blocks of the picture encoder and its prior, layers of the text encoder."""
        from models.freezing import layers_of, stages_of  # for those who divide it

        for encoder in (self.vision_encoder, *([self.instruction_encoder] if self.has_vir else [])):
            yield from stages_of(encoder.backbone)
        yield from layers_of(self.text_encoder.backbone)

    def temperatures(self) -> tuple[Tensor, Tensor]:
        """Those that are learnt, the second only where there is an affiliation loss."""
        temp = self._clamped(self.temp)
        return temp, self._clamped(self.temp2) if self.use_affil_loss else temp

    def _clamped(self, temp: Tensor) -> Tensor:
        """The temperature, with `clamp_temp` held within X-VLM's range."""
        if self.clamp_temp:
            with torch.no_grad():
                temp.clamp_(0.001, 0.5)
        return temp


def check_filter(config: Config, tokens: int) -> None:
    """Raise InputError where VIR would keep more tokens than the picture encoder gives."""
    if config.has_vir and config.belief == "hard" and config.filter_size > min(tokens, MAX_PICTURE_TOKENS):
        raise InputError(f"'filter_size' {config.filter_size} is over the {tokens} picture tokens there are")
