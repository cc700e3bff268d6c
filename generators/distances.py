"""The distance between two predictions of a diffusion model."""

from __future__ import annotations

from torch import Tensor


def squared_distance(one: Tensor, other: Tensor) -> Tensor:
    """Mean over the pixels of the squared difference, (B,), of predictions (B, C, H, W)."""
    return (one - other).square().flatten(1).mean(1)
