"""Logit adjustment: the prior enters the logits, either in training or at test time, never in both.

    training   ℓ_i = w_y CE(z + a, y)
    post hoc   argmax_c z_c - a_c, of a model trained with plain cross entropy
    a_c = log(π_c^τ + ε),  π = n / Σ n,  ε = 1e-12

Source: Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021, eq. 9 and 10;
google-research/google-research, logit_adjustment/utils.py, which adds ε after the power. τ log π is the cleaner
definition; it is equal within 1e-9 until π^τ nears ε, where the adjustment here saturates at log ε = -27.6.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from rebalance.losses._checks import check_batch, check_counts_fit, check_not_negative
from rebalance.losses._counts import PerClass, class_prior, optional_per_class
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction
from rebalance.losses._repr import told_options
from rebalance.losses.cross_entropy import cross_entropy_loss


def logit_adjustments(counts: PerClass, *, tau: float = 1.0, eps: float = 1e-12) -> Tensor:
    """a_c = log(π_c^τ + ε), float64 (C,).

    Args:
        counts: Training images of each class, or their shares, (C,).
        tau: τ; 1 is the paper's default, 0 changes nothing.
        eps: ε, which bounds the adjustment of a class without an image.

    Raises:
        ValueError: τ or ε below 0, or not finite.
    """
    check_not_negative(tau, "tau", "1 is the paper's default, 0 changes nothing")
    check_not_negative(eps, "eps", "1e-12 is usual")
    return torch.log(class_prior(counts) ** tau + eps)


def logit_adjustment_loss(
    logits: Tensor,
    targets: Tensor,
    adjustments: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Logit-adjusted cross entropy. At test time the logits are used as they are.

    Args:
        logits: (B, C).
        targets: Class ids, (B,).
        adjustments: a_c, (C,), see `logit_adjustments`.
        weight: Class weights, (C,).
        reduction: "mean", "weighted_mean", "sum" or "none".
    """
    check_batch(logits, targets, adjustments=adjustments)
    with full_precision(logits) as z:
        return cross_entropy_loss(z + adjustments.to(z.dtype), targets, weight=weight, reduction=reduction)


def adjust_logits(logits: Tensor, counts: PerClass, *, tau: float = 1.0, eps: float = 1e-12) -> Tensor:
    """Post-hoc adjustment, z - a, of the logits of a model that was trained with plain cross entropy.

    A class without an image gets -inf: nothing was learnt of it, and the formula would add 27.6 to its logit and
    predict it always.

    Args:
        logits: (..., C).
        counts: Training images of each class, or their shares, (C,).
        tau: τ; 0 changes nothing.
        eps: ε.

    Returns:
        Adjusted logits of the shape of `logits`, in float32 or wider.

    Raises:
        ValueError: Another number of columns than of counts, or counts or an option out of range.
    """
    adjustments = logit_adjustments(counts, tau=tau, eps=eps)
    if tau:
        adjustments[class_prior(counts) == 0] = torch.inf
    if logits.ndim == 0 or logits.shape[-1] != len(adjustments):
        raise ValueError(
            f"expected logits with a last dimension of {len(adjustments)}, one column for each count; "
            f"got {tuple(logits.shape)}; pass counts for every class"
        )
    with full_precision(logits) as z:
        return z - adjustments.to(z)


@final
class LogitAdjustmentLoss(nn.Module):
    """`logit_adjustment_loss` with the adjustments of its counts in a buffer.

    Args:
        counts: Training images of each class, or their shares, (C,).
        tau: τ.
        eps: ε.
        weight: Class weights, (C,).
    """

    adjustments: Tensor
    weight: Tensor | None

    extra_repr = told_options

    def __init__(
        self, counts: PerClass, *, tau: float = 1.0, eps: float = 1e-12, weight: PerClass | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("adjustments", logit_adjustments(counts, tau=tau, eps=eps), persistent=False)
        self.register_buffer("weight", optional_per_class(weight, "weight"), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of logits (B, C) and class ids (B,)."""
        check_counts_fit(logits, self.adjustments)
        return logit_adjustment_loss(logits, targets, self.adjustments, weight=self.weight, reduction=reduction)
