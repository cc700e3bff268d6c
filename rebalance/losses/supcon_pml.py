"""Supervised contrastive loss as pytorch-metric-learning defines it: the mean is over the anchors that have a loss.

    ℓ_a = log Σ_{k ∈ A(a)} exp(f_a·f_k / T) - mean_{p ∈ P(a)} f_a·f_p / T,  L = Σ_a ℓ_a / #{a: ℓ_a > 0}

with f normalised inside, no base temperature, and 0 for a batch without a negative pair, where `supcon_loss` has a
positive loss and a useful gradient. The two are equal where T_base = T and every anchor has a positive and a negative.
Source: KevinMusgrave/pytorch-metric-learning, losses/supcon_loss.py with its AvgNonZeroReducer.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from rebalance.losses._checks import check_targets, check_temperature
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction, reduce_losses
from rebalance.losses._repr import told_options
from rebalance.losses.supcon import contrastive_anchor_losses

SHORTEST = 1e-8
"""A feature shorter than this has no direction: its cosines and gradient are 0, where the original's is up to 1e12."""


def supcon_pml_loss(
    views: Tensor, targets: Tensor, *, temperature: float = 0.1, reduction: Reduction = "mean"
) -> Tensor:
    """pytorch-metric-learning's SupConLoss.

    Args:
        views: (B, V, D), of any length; `features[:, None]` for features (B, D).
        targets: Class ids, (B,).
        temperature: T.
        reduction: "mean" (and "weighted_mean") divides by the number of anchors with a loss above 0, not by B. "sum" is
            Σ_a ℓ_a / V; "none" gives the mean over each sample's anchors, (B,).

    Raises:
        ValueError: Shapes that do not fit, or an option out of range.
    """
    if views.ndim != 3:
        raise ValueError(
            f"expected views of shape (B, V, D); got {tuple(views.shape)}; features[:, None] makes one view of (B, D)"
        )
    check_temperature(temperature)
    check_targets(targets, views.shape[0])
    with full_precision(views) as v:
        same = targets[:, None] == targets  # (B, B)
        lengths = torch.linalg.vector_norm(v, dim=2, keepdim=True)
        unit = v * torch.where(lengths > SHORTEST, lengths.clamp_min(SHORTEST).reciprocal(), 0.0)
        losses = contrastive_anchor_losses(unit, same.to(v.dtype), temperature, n_anchor_views=v.shape[1])
        losses = torch.where(same.all(), 0.0, losses)
        if reduction in ("mean", "weighted_mean"):
            return losses.sum() / (losses > 0).sum().clamp_min(1)
        return reduce_losses(losses.mean(dim=1), reduction)


@final
class SupConPMLLoss(nn.Module):
    """`supcon_pml_loss` with its temperature."""

    extra_repr = told_options

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def forward(self, views: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of views (B, V, D) and class ids (B,)."""
        return supcon_pml_loss(views, targets, temperature=self.temperature, reduction=reduction)
