"""Focal loss over one-vs-all sigmoids, summed over classes.

    ℓ_i = w_{y_i} Σ_c (1 - p_ic)^γ softplus(-s_ic),  1 - p = σ(-s),
    s_ic = +z_ic for the label's column, -z_ic elsewhere

Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, eq. 4 and 5; with the divisor B (one positive a
row) of richardaecn/class-balanced-loss, src/cifar_main.py, and vandit15/Class-balanced-loss-pytorch.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.losses._checks import check_batch, check_gamma
from rebalance.losses._counts import PerClass, optional_per_class
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction, weigh_and_reduce
from rebalance.losses._repr import told_options
from rebalance.losses.sigmoid_cross_entropy import right_side


def focal_sigmoid_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Focal loss over one-vs-all sigmoids.

    The modulator is exp(γ log σ(-s)). Both originals go through log(1 + exp(-z)), which overflows for a label's logit
    below -88 in float32: the hardest positive loses its loss and its gradient is NaN. BagofTricks-LT's power of a
    sigmoid has a NaN gradient for γ < 1 above a logit of 17. Here both keep their exact value.

    Args:
        logits: (B, C).
        targets: Class ids, (B,).
        gamma: γ >= 0; 0 is sigmoid cross entropy.
        weight: Class weights, (C,); the weight of the label multiplies the whole row.
        reduction: "mean", "weighted_mean", "sum" or "none".
    """
    check_gamma(gamma)
    check_batch(logits, targets, weight=weight)
    with full_precision(logits) as z:
        s = right_side(z, targets)
        log_p = F.logsigmoid(s)
        losses = -(torch.exp(gamma * F.logsigmoid(-s)) * log_p if gamma else log_p).sum(dim=1)
        return weigh_and_reduce(losses, targets, weight, reduction)


@final
class FocalSigmoidLoss(nn.Module):
    """`focal_sigmoid_loss` with its options.

    Args:
        gamma: γ >= 0.
        weight: Class weights, (C,).
    """

    weight: Tensor | None

    extra_repr = told_options

    def __init__(self, *, gamma: float = 2.0, weight: PerClass | None = None) -> None:
        super().__init__()
        check_gamma(gamma)
        self.gamma = gamma
        self.register_buffer("weight", optional_per_class(weight, "weight"), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of logits (B, C) and class ids (B,)."""
        return focal_sigmoid_loss(logits, targets, gamma=self.gamma, weight=self.weight, reduction=reduction)
