"""Vision, instruction and text encoders: pictures or token ids -> tokens (docs/behaviour.md, 1).

Each encoder gives the summary first: the vision encoder of a picture, the text encoder of a caption.
"""

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from models.backbones import TimmModel, fix_batch_norm, fuse_window_attention, keep_depthwise_in_float32

# Channel values of 0 to 1, RGB.
PICTURE_MEAN = (0.48145466, 0.4578275, 0.40821073)
PICTURE_STD = (0.26862954, 0.26130258, 0.27577711)


def normalise(images: Tensor) -> Tensor:
    """uint8 `[B, 3, H, W]` -> float `[B, 3, H, W]` on the same device, with CLIP's mean and deviation."""
    scale, shift = _scale_and_shift(images.device)
    return torch.addcmul(shift, images, scale)


@lru_cache
def _scale_and_shift(device: torch.device) -> tuple[Tensor, Tensor]:
    """`scale` and `shift` `[3, 1, 1]` such that `pixel * scale + shift` is the normalised value."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (PICTURE_MEAN, PICTURE_STD))
    return (1 / (255 * std)).float().to(device), (-mean / std).float().to(device)


class PictureEncoder(nn.Module):
    """A timm model behind the normalisation it was pre-trained with."""

    scale: Tensor  # [3, 1, 1] as shift, there with own_normalisation
    shift: Tensor
    width: int  # of the features it gives

    def __init__(self, backbone: TimmModel, own_normalisation: bool) -> None:
        super().__init__()
        # Convolutions on a CPU, and in low precision on a GPU, are some times faster with channels last.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        keep_depthwise_in_float32(self.backbone)
        self.own_normalisation = own_normalisation
        if own_normalisation:
            own_mean, own_std = (torch.tensor(backbone.pretrained_cfg[key]) for key in ("mean", "std"))
            scale, shift = (
                torch.tensor(PICTURE_STD) / own_std,
                (torch.tensor(PICTURE_MEAN) - own_mean) / own_std,
            )
            self.register_buffer("scale", scale[:, None, None], persistent=False)
            self.register_buffer("shift", shift[:, None, None], persistent=False)

    def prepared(self, images: Tensor) -> Tensor:
        """From CLIP's normalisation to the backbone's, in its memory format."""
        if self.own_normalisation:
            images = torch.addcmul(self.shift, images, self.scale)
        return images.contiguous(memory_format=torch.channels_last)


class VisionEncoder(PictureEncoder):
    """Pictures -> tokens with their summary first: a Swin's or a convolution's mean, a ViT's class token."""

    def __init__(
        self,
        backbone: TimmModel,
        *,
        own_normalisation: bool = False,
        trained_stages: int | None = None,
        fixed_bn: bool = False,
    ) -> None:
        super().__init__(backbone, own_normalisation)
        self.fixed_bn = fixed_bn
        self.channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"
        self.prefix_tokens = getattr(backbone, "num_prefix_tokens", 0)
        self.width = backbone.num_features
        if trained_stages is not None:
            from models.freezing import freeze_all_but_last  # for those who fix a part

            freeze_all_but_last(backbone, trained_stages)

    def train(self, mode: bool = True) -> "VisionEncoder":
        """Training mode; with `fixed_bn` batch norm keeps its running statistics."""
        super().train(mode)
        fuse_window_attention(self.backbone, not mode)
        if self.fixed_bn:
            fix_batch_norm(self)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """images `[B, 3, H, W]` -> `[B, 1 + N, width]`."""
        return self.tokens_of(self.backbone.forward_features(self.prepared(images)))

    def tokens_of(self, tokens: Tensor) -> Tensor:
        """What the backbone gives -> `[B, 1 + N, width]`, the summary first."""
        if tokens.ndim == 4:
            tokens = tokens.flatten(1, 2) if self.channels_last else tokens.flatten(2).transpose(1, 2)
        if self.prefix_tokens == 0:
            return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        return torch.cat([tokens[:, :1], tokens[:, self.prefix_tokens :]], dim=1)


class InstructionEncoder(PictureEncoder):
    """The prior: a scene classifier up to its global pooling. Without gradient unless it is fine-tuned."""

    def __init__(
        self, backbone: TimmModel, *, finetune: bool, batch_stats: bool, own_normalisation: bool = False
    ) -> None:
        super().__init__(backbone, own_normalisation)
        self.finetune, self.batch_stats = finetune, batch_stats
        self.width = getattr(backbone, "head_hidden_size", backbone.num_features)  # some widen after pooling
        self.requires_grad_(finetune)

    def train(self, mode: bool = True) -> "InstructionEncoder":
        """Training mode; a frozen prior's batch norm follows it only with `batch_stats` (as released)."""
        return super().train(mode and (self.finetune or self.batch_stats))

    def forward(self, images: Tensor) -> Tensor:
        """images `[B, 3, H, W]` -> `[B, width]`."""
        with torch.set_grad_enabled(self.finetune and torch.is_grad_enabled()):
            return self.backbone(self.prepared(images))


class TextEncoder(nn.Module):
    """A BERT-like transformers model: token ids -> tokens with the summary's first, and which of them are attended.

    mask_padding: False attends padding as the released model does, whatever mask is given, so that an embedding
    depends on its batch. summary: a caption is summed up in its `first` token, or in the `mean` of the attended ones.
    """

    def __init__(self, backbone: PreTrainedModel, *, mask_padding: bool, summary: Literal["first", "mean"]) -> None:
        super().__init__()
        self.backbone, self.mask_padding, self.summary_kind = backbone, mask_padding, summary
        self.width: int = backbone.config.hidden_size

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """ids `[B, L]` -> tokens `[B, L, width]`, mask `[B, L]` true where attended (None: all of them are).

        attention_mask `[B, L]`, 1 where a token is; with `mask_padding` and none given, found from the padding id.
        """
        mask = None
        if self.mask_padding:
            mask = attention_mask if attention_mask is not None else ids != self.backbone.config.pad_token_id
        return self.backbone(ids, attention_mask=mask).last_hidden_state, mask

    def summary(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """What sums up a caption's tokens, those of `forward` or a projection of them: `[B, L, D]` -> `[B, D]`."""
        if self.summary_kind == "first":
            return tokens[:, 0]
        if mask is None:
            mask = tokens.new_ones(tokens.shape[:2])
        weights = mask.to(tokens.dtype).unsqueeze(-1)  # [B, L, 1]
        return (tokens * weights).sum(dim=1) / weights.sum(dim=1)
