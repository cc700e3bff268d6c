"""The contracting path of a U-Net: two convolutions a stage, max-pooling between stages.

Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015, figure 1, with batch
norm and padded convolutions, and four of the paper's five resolutions, so that it takes images from 8 px on. The
expanding path is `rebalance.decoder`, which only the autoencoder needs.
"""

from __future__ import annotations

from typing import final

from torch import nn

from rebalance.backbones.base import Backbone, fill_stages
from rebalance.convolution import convolution


@final
class UNetEncoder(Backbone):
    """Stages of `width`, 2 · `width`, 4 · `width`, … channels, each at half the resolution of the one before.

    Args:
        width: Channels of the first stage.
        n_stages: Resolutions.
    """

    def __init__(self, *, width: int = 64, n_stages: int = 4) -> None:
        super().__init__()
        channels = [width * 2**i for i in range(n_stages)]
        stages = [
            nn.Sequential(
                *([nn.MaxPool2d(2)] if i else []),
                *convolution(channels[i - 1] if i else 3, n),
                *convolution(n, n),
            )
            for i, n in enumerate(channels)
        ]
        fill_stages(self, stages, channels)
