"""Per-sample losses → what the caller asks for, with the weight of each sample's class.

none           w_y ℓ                 (B,)
sum            Σ w_y ℓ
mean           Σ w_y ℓ / B           imbalanced-DL, Cui's TensorFlow code
weighted_mean  Σ w_y ℓ / Σ w_y       torch.nn.CrossEntropyLoss(weight), LDAM-DRW, BagofTricks
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["mean", "weighted_mean", "sum", "none"]


def reduce_losses(losses: Tensor, reduction: Reduction, weights: Tensor | None = None) -> Tensor:
    """Reduces per-sample losses (B,) that already include their weights.

    Where all weights of the batch are 0, "weighted_mean" is 0, not 0 / 0.

    Args:
        losses: w_y ℓ, shape (B,).
        reduction: One of the four of this file.
        weights: w_y, shape (B,), the divisor of "weighted_mean"; None for ones.

    Raises:
        ValueError: An unknown reduction.
    """
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction == "mean" or (reduction == "weighted_mean" and weights is None):
        return losses.mean()
    if reduction == "weighted_mean" and weights is not None:
        total = weights.sum()
        return losses.sum() / torch.where(total == 0, torch.ones_like(total), total)
    raise ValueError(f"expected a reduction out of mean, weighted_mean, sum, none; got {reduction!r}; name one of them")


def weigh_and_reduce(losses: Tensor, targets: Tensor, weight: Tensor | None, reduction: Reduction) -> Tensor:
    """Multiplies per-sample losses (B,) by the weight of their class, then reduces."""
    if weight is None:
        return reduce_losses(losses, reduction)
    weights = weight.to(losses.dtype)[targets]  # (B,)
    return reduce_losses(weights * losses, reduction, weights)
