"""Batch norm folded into the convolution before it, for a model that only embeds from now on.

An embedding changes by rounding; in EfficientNet-Lite2 the picture encoder takes three quarters of the time in bf16.
"""

from itertools import pairwise

from timm.layers import BatchNormAct2d
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

KNOWN = (EfficientNet, ResNet)  # where a batch norm is called right after the convolution that it stands behind


def fold_batch_norm(model: nn.Module) -> None:
    """Fold it in all EfficientNets and ResNets in `model`, which is in evaluation mode then, with other weights."""
    model.eval()
    for network in [module for module in model.modules() if isinstance(module, KNOWN)]:
        for part in network.modules():
            for (name, convolution), (next_name, norm) in pairwise(list(part.named_children())):
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    setattr(part, name, fuse_conv_bn_eval(convolution, norm))
                    setattr(part, next_name, norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity())
