"""A small convolutional network for images of 8 to 16 px: the demo's backbone, seconds on a CPU."""

from __future__ import annotations

from typing import final

from torch import nn

from rebalance.backbones.base import Backbone, fill_stages
from rebalance.convolution import convolution


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
            nn.Sequential(*convolution(3, width), *convolution(width, width)),
            nn.Sequential(*convolution(width, 2 * width, stride=2)),
            nn.Sequential(*convolution(2 * width, 4 * width, stride=2)),
        ]
        fill_stages(self, stages, channels)
