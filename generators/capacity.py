"""Capacity manipulation (CM): a low-rank part of the weights is kept for what is rare.

    W = W_g + s B A                                    rank of B A: a share of the smaller number of channels
    L = |v - v*|² + C (w_con p_y - w_div q_y) |v - v_g|²,   v_g predicted with W_g alone,  q_c = (1/p_c) / Σ (1/p_c)

Of frequent classes W_g alone has to say the same as W, of rare ones something else, so their knowledge goes to B A.
Sampling takes W, which is no larger than without. Source: Hong et al., Improving Diffusion Models for Class-Imbalanced
Training Data via Capacity Manipulation, ICLR 2026; Feng-Hong/ImbDiff-CM. There it is joined with a transfer of targets
between classes, which is left out here ("pure CM"), and predicts the noise, here v.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from generators.distances import squared_distance

RANK_SHARE = 0.1
"""Rank of the reserved part beside the smaller number of channels of a convolution."""
SCALE = 0.5
"""s: how much of the reserved part is in the weights."""


@final
class ReservedPart(nn.Module):
    """The weight of a convolution (out, in, k, k), plus a low-rank part while `active`.

    Args:
        weight: W_g.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        out_channels, in_channels, size, _ = weight.shape
        rank = max(1, int(RANK_SHARE * min(out_channels, in_channels)))
        self.a = nn.Parameter(weight.new_empty(rank * size, in_channels * size))
        self.b = nn.Parameter(weight.new_zeros(out_channels * size, rank * size))  # W begins as W_g
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.active = True

    def forward(self, weight: Tensor) -> Tensor:
        """W, or W_g while it is not active."""
        return weight + SCALE * (self.b @ self.a).view(weight.shape) if self.active else weight


def reserve_capacity(network: nn.Module) -> None:
    """Give the convolutions of the network's residual blocks, but those of one pixel, a reserved part, in place."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and "resnets" in name and module.kernel_size[0] > 1:
            register_parametrization(module, "weight", ReservedPart(module.weight))


def merged_state(network: nn.Module) -> dict[str, Tensor]:
    """State of a network without reserved parts that predicts what this one does: its weights are W."""
    merged = {name: tensor for name, tensor in network.state_dict().items() if ".parametrizations." not in name}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and is_parametrized(module, "weight"):
            merged[f"{name}.weight"] = module.weight.detach()
    return merged


@contextmanager
def general_part(network: nn.Module) -> Iterator[None]:
    """Within it the network predicts with W_g alone."""
    parts = [module for module in network.modules() if isinstance(module, ReservedPart)]
    for part in parts:
        part.active = False
    try:
        yield
    finally:
        for part in parts:
            part.active = True


def capacity_loss(
    predicted: Tensor,
    general: Tensor,
    labels: Tensor,
    counts: Tensor,
    *,
    consistency: float = 1.0,
    diversity: float = 0.2,
) -> Tensor:
    """The term of each image (B,), to be added to its loss; negative for rare classes.

    Args:
        predicted: v (B, C, H, W).
        general: v_g (B, C, H, W), see `general_part`.
        labels: Class ids (B,), all of classes with images.
        counts: Training images of each class (K,).
        consistency: w_con.
        diversity: w_div.
    """
    present = counts > 0
    share = counts.to(predicted.dtype) / counts.sum()
    inverse = torch.where(present, 1 / share, 0.0)
    weight = present.sum() * (consistency * share - diversity * inverse / inverse.sum())
    return weight[labels] * squared_distance(general, predicted)
