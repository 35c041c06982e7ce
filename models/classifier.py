"""A scene classifier whose encoder becomes PIR's prior: pictures -> scores of the classes."""

from collections.abc import Mapping

from torch import Tensor, nn

from models.backbones import TimmModel, fix_batch_norm, timm_backbone
from models.encoders import InstructionEncoder
from models.start_files import VISION_HEADS
from utils.errors import InputError


class SceneClassifier(nn.Module):
    """PIR's own instruction encoder, trained, and one linear layer over its pooled features.

    So the backbone meets pictures as it will as a prior: in CLIP's normalisation, in which PIR hands pictures over
    and the released prior takes them, or with `own_normalisation` in that of its own pretraining.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        *,
        image_res: int,
        own_normalisation: bool,
        trained_stages: int | None = None,
        fixed_bn: bool = False,
    ) -> None:
        super().__init__()
        backbone = timm_backbone(name, image_res=image_res, pooled=True)
        self.encoder = InstructionEncoder(
            backbone, finetune=True, batch_stats=False, own_normalisation=own_normalisation
        )
        if trained_stages is not None:
            from models.freezing import freeze_all_but_last  # for those who fix a part

            freeze_all_but_last(backbone, trained_stages)
        self.head = nn.Linear(self.encoder.width, classes)
        self.head_name = _head_name(backbone)
        self.fixed_bn = fixed_bn
        self.init_params: list[str] = []  # names that the optimizer's lr_mult reaches

    def train(self, mode: bool = True) -> "SceneClassifier":
        """Training mode; with `fixed_bn` batch norm keeps its running statistics."""
        super().train(mode)
        if self.fixed_bn:
            fix_batch_norm(self)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """images `[B, 3, H, W]` in CLIP's normalisation -> scores `[B, classes]`."""
        return self.head(self.encoder(images))


def start_file_state(model: SceneClassifier) -> dict[str, Tensor]:
    """The weights named as timm names the whole classifier: for ResNet-50 the published RSP layout, with `fc`."""
    head = {f"{model.head_name}.{name}": tensor for name, tensor in model.head.state_dict().items()}
    return model.encoder.backbone.state_dict() | head


def load_start_file_state(model: SceneClassifier, state: Mapping[str, Tensor]) -> None:
    """Fill the whole classifier from what `start_file_state` gave; InputError, unchanged, where it is of another."""
    own = start_file_state(model)
    unfit = [name for name in {*own, *state} if name not in own or name not in state]
    unfit += [name for name in own if name in state and own[name].shape != state[name].shape]
    if unfit:
        raise InputError(
            f"the weights are of another classifier: {len(unfit)} tensors do not fit, first '{min(unfit)}'; "
            "give those of this backbone and these classes"
        )
    head = {f"{model.head_name}.{name}": name for name in model.head.state_dict()}
    model.encoder.backbone.load_state_dict({name: tensor for name, tensor in state.items() if name not in head})
    model.head.load_state_dict({name: state[long_name] for long_name, name in head.items()})


def _head_name(backbone: TimmModel) -> str:
    """timm's name for the backbone's classifier, where it is one that the reader of start files drops."""
    name = backbone.pretrained_cfg.get("classifier")
    name = name[0] if isinstance(name, list | tuple) else name  # a distilled model has two
    return name if isinstance(name, str) and f"{name}.".startswith(VISION_HEADS) else "head"
