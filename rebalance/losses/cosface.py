"""CosFace, which is AM-Softmax: the label's cosine pays a constant margin.

    ℓ_i = w_y CE(s c', y),  c'_y = cos θ_y - m,  c'_j = cos θ_j elsewhere

It is LDAM with one margin for all classes.
Source: Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018, eq. 4; Wang et al.,
Additive Margin Softmax for Face Verification, 2018; KevinMusgrave/pytorch-metric-learning,
losses/cosface_loss.py; deepinsight/insightface, recognition/arcface_torch/losses.py (m = 0.4).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from rebalance.losses._checks import check_batch, check_not_negative, check_scale
from rebalance.losses._counts import PerClass, optional_per_class
from rebalance.losses._reduction import Reduction
from rebalance.losses._repr import told_options
from rebalance.losses.cross_entropy import cross_entropy_loss
from rebalance.losses.ldam import ldam_logits


def cosface_logits(cosines: Tensor, targets: Tensor, *, margin: float = 0.35, scale: float = 64.0) -> Tensor:
    """Logits s c', (B, C), whose cross entropy is the CosFace loss.

    Args:
        cosines: (B, C), in [-1, 1], of a cosine head without a scale: that is inside the loss.
        targets: Class ids, (B,).
        margin: m, in units of cosine.
        scale: s.
    """
    _check_margin(margin)
    check_batch(cosines, targets)
    margins = torch.full((cosines.shape[1],), margin, dtype=torch.float64, device=cosines.device)
    return ldam_logits(cosines, targets, margins, scale=scale)


def cosface_loss(
    cosines: Tensor,
    targets: Tensor,
    *,
    margin: float = 0.35,
    scale: float = 64.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """CosFace loss, the cross entropy of `cosface_logits`.

    Args:
        cosines: (B, C), in [-1, 1], of a cosine head without a scale: that is inside the loss.
        targets: Class ids, (B,).
        margin: m, in units of cosine.
        scale: s.
        weight: Class weights, (C,).
        reduction: "mean", "weighted_mean", "sum" or "none".
    """
    logits = cosface_logits(cosines, targets, margin=margin, scale=scale)
    return cross_entropy_loss(logits, targets, weight=weight, reduction=reduction)


def _check_margin(margin: float) -> None:
    check_not_negative(margin, "margin", "0.35 is usual, 0 is no margin")


@final
class CosFaceLoss(nn.Module):
    """`cosface_loss` with its options; it takes cosines in [-1, 1] of a cosine head, not the logits of a linear one.

    Args:
        margin: m, in units of cosine.
        scale: s.
        weight: Class weights, (C,).
    """

    weight: Tensor | None

    extra_repr = told_options

    def __init__(self, *, margin: float = 0.35, scale: float = 64.0, weight: PerClass | None = None) -> None:
        super().__init__()
        _check_margin(margin)
        check_scale(scale)
        self.margin = margin
        self.scale = scale
        self.register_buffer("weight", optional_per_class(weight, "weight"), persistent=False)

    def forward(self, cosines: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of cosines (B, C) in [-1, 1] and class ids (B,)."""
        return cosface_loss(
            cosines, targets, margin=self.margin, scale=self.scale, weight=self.weight, reduction=reduction
        )


am_softmax_loss = cosface_loss
AMSoftmaxLoss = CosFaceLoss
