"""A small convolutional network for images of 8 to 16 px: the demo's backbone, seconds on a CPU."""

from __future__ import annotations

from typing import final

from torch import nn

from rebalance.backbones.base import Backbone, fill_stages


@final
class SmallCNN(Backbone):
    """Three convolutional stages of `width`, 2 · `width` and 4 · `width` channels; the first keeps the resolution.

    Args:
        width: Channels of the first stage.
    """

    def __init__(self, *, width: int = 32) -> None:
        super().__init__()
        channels = (width, 2 * width, 4 * width)
        stages = [
            nn.Sequential(*_convolution(3, width, 1), *_convolution(width, width, 1)),
            nn.Sequential(*_convolution(width, 2 * width, 2)),
            nn.Sequential(*_convolution(2 * width, 4 * width, 2)),
        ]
        fill_stages(self, stages, channels)


def _convolution(channels_in: int, channels: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
