"""Focal loss over the softmax: easy samples, those whose p_y is near 1, are turned down.

    ℓ = w_y (1 - p)^γ CE,  p = exp(-CE)                  the textbook form, default
    ℓ = (1 - p)^γ w_y CE,  p = exp(-w_y CE)              weight_in_modulator, as in LDAM-DRW

Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, eq. 4 and 5, with the softmax in place of the
sigmoid as in kaidic/LDAM-DRW, losses.py. The detached modulator is that of Vanint/Awesome-LongTailed-Learning,
Main-codebase/loss/FocalLoss.py.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from rebalance.losses._checks import check_batch, check_gamma
from rebalance.losses._counts import PerClass, optional_per_class
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction, reduce_losses
from rebalance.losses._repr import told_options
from rebalance.losses.cross_entropy import cross_entropy_loss


def focal_softmax_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    weight_in_modulator: bool = False,
    detach_modulator: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Focal loss over the softmax.

    1 - p is computed as -expm1(-CE) and kept above the smallest float, so that a sample whose CE rounds to 0 has a zero
    gradient; LDAM-DRW's has a NaN one for 0 < γ < 1, which in float32 a logit gap of 17 is enough for.

    Args:
        logits: (B, C).
        targets: Class ids, (B,).
        gamma: γ >= 0; 0 is cross entropy. The paper recommends 2, LDAM-DRW's script passes 1.
        weight: Class weights, (C,).
        weight_in_modulator: LDAM-DRW's form, where p becomes p^w as the modulator sees the weighted CE.
        detach_modulator: Keep the modulator out of the gradient: the same value, another gradient.
        reduction: "mean", "weighted_mean", "sum" or "none".
    """
    check_gamma(gamma)
    check_batch(logits, targets, weight=weight)
    with full_precision(logits) as z:
        ce = cross_entropy_loss(z, targets, reduction="none")
        weights = None if weight is None else weight.to(ce.dtype)[targets]
        weighted = ce if weights is None else weights * ce
        modulated = weighted if weight_in_modulator else ce
        if detach_modulator:
            modulated = modulated.detach()
        wrong = -torch.expm1(-modulated)  # 1 - p
        modulator = wrong.clamp_min(torch.finfo(wrong.dtype).tiny) ** gamma
        return reduce_losses(modulator * weighted, reduction, weights)


@final
class FocalSoftmaxLoss(nn.Module):
    """`focal_softmax_loss` with its options; see there."""

    weight: Tensor | None

    extra_repr = told_options

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        weight: PerClass | None = None,
        weight_in_modulator: bool = False,
        detach_modulator: bool = False,
    ) -> None:
        super().__init__()
        check_gamma(gamma)
        self.gamma = gamma
        self.weight_in_modulator = weight_in_modulator
        self.detach_modulator = detach_modulator
        self.register_buffer("weight", optional_per_class(weight, "weight"), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of logits (B, C) and class ids (B,)."""
        return focal_softmax_loss(
            logits,
            targets,
            gamma=self.gamma,
            weight=self.weight,
            weight_in_modulator=self.weight_in_modulator,
            detach_modulator=self.detach_modulator,
            reduction=reduction,
        )
