"""PriorCE: cross entropy with the prior added to the logits, the balanced part of LADE.

    ℓ_i = w_y CE(z + log(π + ε), y),  ε = 1e-9

It is logit adjustment with τ = 1 and another ε. Source: Hong et al., Disentangling Label Distribution for Long-tailed
Visual Recognition, CVPR 2021; Vanint/Awesome-LongTailed-Learning, Main-codebase/loss/PriorCELoss.py.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from rebalance.losses._checks import check_counts_fit
from rebalance.losses._counts import PerClass, optional_per_class
from rebalance.losses._reduction import Reduction
from rebalance.losses._repr import told_options
from rebalance.losses.logit_adjustment import logit_adjustment_loss, logit_adjustments


@final
class PriorCELoss(nn.Module):
    """PriorCE with log(π + ε) in a buffer; the function is `logit_adjustment_loss`.

    Args:
        counts: Training images of each class, (C,).
        eps: ε, which bounds the term of a class without an image.
        weight: Class weights, (C,).
    """

    adjustments: Tensor
    weight: Tensor | None

    extra_repr = told_options

    def __init__(self, counts: PerClass, *, eps: float = 1e-9, weight: PerClass | None = None) -> None:
        super().__init__()
        self.register_buffer("adjustments", logit_adjustments(counts, tau=1.0, eps=eps), persistent=False)
        self.register_buffer("weight", optional_per_class(weight, "weight"), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of logits (B, C) and class ids (B,)."""
        check_counts_fit(logits, self.adjustments)
        return logit_adjustment_loss(logits, targets, self.adjustments, weight=self.weight, reduction=reduction)
