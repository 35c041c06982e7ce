"""What every retrieval model is: two verbs, and the losses of a batch from what they give (docs/behaviour.md, 3)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from models.losses import affiliation_loss, contrastive_loss
from utils.config import Config


class RetrievalModel(nn.Module):
    """Two verbs, `encode_image` and `encode_text`; called, it gives the losses of a batch."""

    common_stages: Any = None  # a CommonStages, where the picture encoder and its prior may have some
    logit_bias: Any = None  # SigLIP's
    has_vir = False
    adapters: Any = ()  # peft's, where there are some

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        self.embed_dim = c.embed_dim
        self.use_affil_loss, self.use_triplet_loss = c.use_affil_loss, c.use_triplet_loss
        self.max_violation = c.max_violation
        self.center_factor, self.clamp_temp = c.center_factor, c.clamp_temp
        self.gather_grad, self.center_scope, self.center_choice = c.gather_grad, c.center_scope, c.center_choice
        self.accumulate = c.accumulate
        self.same_class_negatives, self.same_sentence_positives = c.same_class_negatives, c.same_sentence_positives
        self.sigmoid, self.pairs_alone = c.contrastive == "sigmoid", c.positives == "pair"

    def encode_image(self, images: Tensor, prior: Tensor | None = None) -> Tensor:
        """Normalised pictures `[B, 3, H, W]` -> unit embeddings `[B, D]`; prior: of them, where it is there already."""
        raise NotImplementedError

    def encode_text(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Token ids `[B, L]` -> unit embeddings `[B, D]`; attention_mask `[B, L]`, 1 where a token is."""
        raise NotImplementedError

    def tower(self, name: str) -> nn.Module:
        """What adapters go into: the `vision` or the `text` encoder's network."""
        raise NotImplementedError

    def fix_tower(self, name: str) -> None:
        """Have the `vision` or the `text` encoder not trained, all of it."""
        self.tower(name).requires_grad_(False)

    def layer_depths(self) -> dict[str, int]:
        """How far below the top of its encoder each parameter is, by name (`models.layer_depths`)."""
        from models.layer_depths import layer_depths  # for those who ask for a falling rate

        return layer_depths(self)

    def encoders(self) -> Iterator[nn.Module]:
        """What torch's compiler is given, each as it is called."""
        raise NotImplementedError

    def layers(self) -> Iterator[nn.Module]:
        """What is gathered one at a time where the model is divided among processes, inner ones first."""
        raise NotImplementedError

    def temperatures(self) -> tuple[Tensor, Tensor]:
        """Of the contrastive and of the affiliation loss, where there is one; within bounds from here on."""
        raise NotImplementedError

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
        idx = None if self.pairs_alone else idx
        with torch.autocast(v.device.type, enabled=False):  # similarities of a low precision mix up near ones
            if self.use_triplet_loss:
                from models.baselines import triplet_loss

                loss = triplet_loss(v, t, hardest=self.max_violation, gather_grad=self.gather_grad)
                return {"loss_triplet": loss, "loss": loss}
            temp, temp2 = self.temperatures()
            if self.sigmoid:
                from models.sigmoid_loss import sigmoid_loss  # SigLIP's

                contrastive = sigmoid_loss(v, t, temp, self.logit_bias, idx, gather_grad=self.gather_grad)
            else:
                said = sentence if self.same_sentence_positives else None
                contrastive = contrastive_loss(v, t, temp, idx, said, gather_grad=self.gather_grad)
            losses = {"loss_contr": contrastive, "loss": contrastive}
            if self.use_affil_loss:
                assert label is not None  # a train set without labels is refused where this loss is used
                losses["loss_affil"] = affiliation_loss(
                    v,
                    t,
                    label,
                    temp2,
                    center_scope=self.center_scope,
                    center_choice=self.center_choice,
                    same_class_negatives=self.same_class_negatives,
                    gather_grad=self.gather_grad,
                )
                losses["loss"] = contrastive + self.center_factor * losses["loss_affil"]
        return losses
