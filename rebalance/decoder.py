"""Maps of a backbone's stages → images: the other half of an autoencoder, thrown away after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.convolution import convolution


@final
class Decoder(nn.Module):
    """The backbone backwards: from its last maps, stage by stage, to the resolution of the images.

    Each stage is an upsampling to the size of the maps before it and two convolutions, as in the expanding path of a
    U-Net (Ronneberger et al., MICCAI 2015), so that any backbone and any image size will do.

    Args:
        stage_channels: Channels after each stage of the backbone, see `Backbone`.
        skips: Join the maps of every stage, as a U-Net does. Pictures get sharper and features worse: what comes by
            the side need not pass through them.
    """

    def __init__(self, stage_channels: Sequence[int], *, skips: bool = False) -> None:
        super().__init__()
        self.skips = skips
        inputs = list(stage_channels)[::-1]
        joined = [*inputs[1:], 0] if skips else [0] * len(inputs)
        outputs = [*inputs[1:], inputs[-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(*convolution(n + side, out), *convolution(out, out))
            for n, side, out in zip(inputs, joined, outputs, strict=True)
        )
        self.last = nn.Conv2d(outputs[-1], 3, kernel_size=1)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Images (B, 3, H, W) of `size`, on the scale of normalised images, from the maps of every stage in order."""
        images = maps[-1]
        for stage, other in zip(self.stages, [*maps[-2::-1], None], strict=True):
            images = F.interpolate(images, size=size if other is None else other.shape[-2:], mode="nearest")
            images = stage(images if other is None or not self.skips else torch.cat([images, other], dim=1))
        decoded: Tensor = self.last(images)
        return decoded
