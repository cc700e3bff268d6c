"""Any torchvision ResNet or ResNeXt, with a stem for small images where they are small."""

from __future__ import annotations

from pathlib import Path
from typing import final

from torch import nn

from rebalance.backbones.base import Backbone, fill_stages
from rebalance.backbones.stages import has_small_stem
from rebalance.backbones.weights_file import IMAGENET, load_weights


@final
class TorchvisionResNet(Backbone):
    """A torchvision ResNet as four stages.

    Args:
        name: torchvision's name, such as "resnet50" or "resnext50_32x4d".
        stem: "imagenet" (7×7, stride 2, max-pool), "small" (3×3, stride 1, no max-pool), or "auto" by `image_size`.
        image_size: Height and width of the images, px.
        weights: A local weights file (.safetensors, or .pth that loads with `weights_only`) in torchvision's layout.
            The classifier is left out; a 7×7 stem does not fit the small stem and is left out with it.
    """

    def __init__(
        self, name: str = "resnet50", *, image_size: int = 224, stem: str = "auto", weights: Path | None = None
    ) -> None:
        super().__init__()
        import torchvision

        net = torchvision.models.get_model(name, weights=None)
        small = has_small_stem(stem, image_size)
        if small:
            net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        if weights is not None:
            load_weights(net, weights, left_out=("fc.", "conv1.") if small else ("fc.",))
            self.normalization = IMAGENET
        first = [net.conv1, net.bn1, net.relu, *([] if small else [net.maxpool]), net.layer1]
        width = net.fc.in_features // 8
        stages = [nn.Sequential(*first), net.layer2, net.layer3, net.layer4]
        fill_stages(self, stages, [width, 2 * width, 4 * width, 8 * width])
