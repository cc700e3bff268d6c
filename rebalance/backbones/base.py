"""What a method may ask of a backbone: stages one after another, and pooled features."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Images (B, 3, H, W) → features (B, n_features), stage by stage.

    A subclass fills `stages` and `stage_channels` in its constructor. Stage 0 holds the stem. A feature generator
    works on the maps between two stages: `maps = backbone.run(images, 0, k)`, then `backbone.run(maps, k)`.
    """

    stages: nn.ModuleList
    stage_channels: tuple[int, ...]
    name: str = ""
    """The name that `build_backbone` built it by."""
    options: Mapping[str, Any] = {}
    """What it takes beside its name, stem and image size to build it anew; values that JSON can hold."""
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and standard deviation of pixels in [0, 1], by channel, that its weights expect; None for a new network."""

    @property
    def n_features(self) -> int:
        """Length of the pooled feature vector."""
        return self.stage_channels[-1]

    def run(self, maps: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Maps (B, D, H, W) after the stages `start` up to, without, `stop`; `start` 0 takes images."""
        for stage in list(self.stages)[start:stop]:
            maps = stage(maps)
        return maps

    def stage_maps(self, images: Tensor) -> list[Tensor]:
        """The maps (B, D, H, W) after each stage, D and size its own."""
        maps = [images]
        for k in range(len(self.stages)):
            maps.append(self.run(maps[-1], k, k + 1))
        return maps[1:]

    def pool(self, maps: Tensor) -> Tensor:
        """Features (B, n_features) of the last stage's maps: the mean over all places."""
        return F.adaptive_avg_pool2d(maps, 1).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, n_features) of normalised images (B, 3, H, W)."""
        return self.pool(self.run(images))


def fill_stages(backbone: Backbone, stages: Sequence[nn.Module], channels: Sequence[int]) -> None:
    """Give `backbone` its stages and the number of channels after each."""
    backbone.stages = nn.ModuleList(stages)
    backbone.stage_channels = tuple(channels)
