"""torchvision's MobileNetV2 as five stages, with smaller strides where images are small."""

from __future__ import annotations

from pathlib import Path
from typing import final

from torch import nn

from rebalance.backbones.base import Backbone, fill_stages
from rebalance.backbones.torchvision_resnet import SMALL_IMAGE
from rebalance.backbones.weights_file import IMAGENET, load_weights

_BOUNDS = ((0, 2), (2, 4), (4, 7), (7, 14), (14, 19))  # of torchvision's `features`: a new stage where a stride is 2
_CHANNELS = (16, 24, 32, 96, 1280)


@final
class MobileNetV2(Backbone):
    """MobileNetV2 (Sandler et al., CVPR 2018), 2.2 M parameters.

    Args:
        stem: "imagenet" (the first convolution and the second stage have stride 2), "small" (both have stride 1), or
            "auto" by `image_size`.
        image_size: Height and width of the images, px.
        weights: A local weights file (.safetensors, or .pth that loads with `weights_only`) in torchvision's layout.
            The classifier is left out; both stems have the same weights.
    """

    def __init__(self, *, image_size: int = 224, stem: str = "auto", weights: Path | None = None) -> None:
        super().__init__()
        import torchvision

        net = torchvision.models.mobilenet_v2(weights=None)
        if weights is not None:
            load_weights(net, weights, left_out=("classifier.",))
            self.normalization = IMAGENET
        features = list(net.features)
        stages = [nn.Sequential(*features[first:end]) for first, end in _BOUNDS]
        if stem == "small" or (stem == "auto" and image_size <= SMALL_IMAGE):
            for stage in stages[:2]:
                next(m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)).stride = (1, 1)
        fill_stages(self, stages, _CHANNELS)
