"""The layer that the networks written here are made of."""

from __future__ import annotations

from torch import nn


def convolution(channels_in: int, channels: int, *, stride: int = 1) -> list[nn.Module]:
    """3 × 3 convolution without bias, batch norm, ReLU: maps (B, channels_in, H, W) → (B, channels, H', W').

    H' = ⌈H / stride⌉. Weights begin as in He et al., Delving Deep into Rectifiers, ICCV 2015.
    """
    layer = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return [layer, nn.BatchNorm2d(channels), nn.ReLU()]
