"""ResNet-20/32/56 for images of about 32 px: three stages of 16, 32 and 64 channels.

He et al., Deep Residual Learning, CVPR 2016, section 4.2, with the parameter-free shortcut (option A) of
kaidic/LDAM-DRW, models/resnet_cifar.py: every second pixel, zero channels on both sides. ResNet-32 has 0.46 M
parameters; much of the literature calls networks of 7 and 21 M parameters by the same name.
"""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.backbones.base import Backbone, fill_stages
from rebalance.errors import InputError


@final
class CifarResNet(Backbone):
    """A CIFAR ResNet of depth 6 n + 2.

    Args:
        depth: 20, 32, 44, 56, …
        width: Channels of the first stage.

    Raises:
        InputError: A depth that is not 6 n + 2.
    """

    def __init__(self, depth: int = 32, *, width: int = 16) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise InputError("a depth of 6 n + 2", str(depth), "use 20, 32, 44 or 56")
        blocks = (depth - 2) // 6
        channels = (width, 2 * width, 4 * width)
        stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        stages = [
            nn.Sequential(*stem, *_stage(width, width, 1, blocks)),
            nn.Sequential(*_stage(width, 2 * width, 2, blocks)),
            nn.Sequential(*_stage(2 * width, 4 * width, 2, blocks)),
        ]
        fill_stages(self, stages, channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)


def _stage(channels_in: int, channels: int, stride: int, blocks: int) -> list[nn.Module]:
    first = _BasicBlock(channels_in, channels, stride)
    return [first, *(_BasicBlock(channels, channels, 1) for _ in range(blocks - 1))]


@final
class _BasicBlock(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.extra_channels = (channels - channels_in) // 2

    def forward(self, maps: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(maps)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self._shortcut(maps))

    def _shortcut(self, maps: Tensor) -> Tensor:
        if self.stride == 1:
            return maps
        extra = self.extra_channels
        return F.pad(maps[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, extra, extra))
