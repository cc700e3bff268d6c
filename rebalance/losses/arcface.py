"""ArcFace: the label's angle pays a margin of its own.

    ℓ_i = w_y CE(s c', y),  c'_y = cos(θ_y + m) where θ_y ≤ π - m, else cos θ_y - m sin m,  c'_j = cos θ_j elsewhere

cos(θ + m) is computed as cos θ cos m - sin θ sin m: no acos, whose slope is infinite for colinear vectors and whose
result there changes with the version of torch.
Source: Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019, eq. 3;
KevinMusgrave/pytorch-metric-learning, losses/arcface_loss.py (exact, degrees); deepinsight/insightface,
recognition/arcface_torch/losses.py (straight-through, radians).
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from rebalance.losses._checks import check_batch, check_scale
from rebalance.losses._cosines import tell_of_logits
from rebalance.losses._counts import PerClass, optional_per_class
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction
from rebalance.losses._repr import told_options
from rebalance.losses.cross_entropy import cross_entropy_loss


def arcface_logits(
    cosines: Tensor,
    targets: Tensor,
    *,
    margin_rad: float = 0.5,
    scale: float = 64.0,
    straight_through: bool = False,
) -> Tensor:
    """Logits s c', (B, C), whose cross entropy is the ArcFace loss.

    At |cos θ| = 1, where the slope of the margin is infinite, sin θ is taken as a constant: the gradient is finite.
    pytorch-metric-learning's is NaN there before torch 2.15.

    Args:
        cosines: (B, C), in [-1, 1], of a cosine head without a scale: that is inside the loss.
        targets: Class ids, (B,).
        margin_rad: m in radians, [0, π]; `math.radians(28.6)` for pytorch-metric-learning's 28.6 degrees.
        scale: s; 64 is harsh for few classes, where (C - 1) / C · log((C - 1) P / (1 - P)) suffices for a
            probability P.
        straight_through: insightface's form: no fallback beyond π - m, and d c'_y / d cos θ_y = 1, without the factor
            sin(θ + m) / sin θ.
    """
    _check_margin(margin_rad)
    check_scale(scale)
    check_batch(cosines, targets)
    tell_of_logits(cosines)
    cos_m, sin_m = math.cos(margin_rad), math.sin(margin_rad)
    label = targets[:, None]
    with full_precision(cosines) as z:
        cos = z.gather(1, label)  # (B, 1)
        sin = ((1.0 - cos) * (1.0 + cos)).clamp_min(torch.finfo(z.dtype).tiny).sqrt()
        with_margin = cos * cos_m - sin * sin_m
        if straight_through:
            with_margin = cos + (with_margin - cos).detach()
        else:
            with_margin = torch.where(cos >= -cos_m, with_margin, cos - margin_rad * sin_m)
        return scale * z.scatter(1, label, with_margin)


def arcface_loss(
    cosines: Tensor,
    targets: Tensor,
    *,
    margin_rad: float = 0.5,
    scale: float = 64.0,
    straight_through: bool = False,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """ArcFace loss, the cross entropy of `arcface_logits`; see there for its options.

    Args:
        cosines: (B, C), in [-1, 1], of a cosine head without a scale: that is inside the loss.
        targets: Class ids, (B,).
        margin_rad: m in radians.
        scale: s.
        straight_through: insightface's gradient.
        weight: Class weights, (C,).
        reduction: "mean", "weighted_mean", "sum" or "none".
    """
    logits = arcface_logits(cosines, targets, margin_rad=margin_rad, scale=scale, straight_through=straight_through)
    return cross_entropy_loss(logits, targets, weight=weight, reduction=reduction)


def _check_margin(margin_rad: float) -> None:
    if not 0.0 <= margin_rad <= math.pi:
        raise ValueError(f"expected margin_rad in [0, π]; got {margin_rad!r}; convert degrees with math.radians")


@final
class ArcFaceLoss(nn.Module):
    """`arcface_loss` with its options; it takes cosines in [-1, 1] of a cosine head, not the logits of a linear one.

    Args:
        margin_rad: m in radians.
        scale: s.
        straight_through: insightface's gradient.
        weight: Class weights, (C,).
    """

    weight: Tensor | None

    extra_repr = told_options

    def __init__(
        self,
        *,
        margin_rad: float = 0.5,
        scale: float = 64.0,
        straight_through: bool = False,
        weight: PerClass | None = None,
    ) -> None:
        super().__init__()
        _check_margin(margin_rad)
        check_scale(scale)
        self.margin_rad = margin_rad
        self.scale = scale
        self.straight_through = straight_through
        self.register_buffer("weight", optional_per_class(weight, "weight"), persistent=False)

    def forward(self, cosines: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of cosines (B, C) in [-1, 1] and class ids (B,)."""
        return arcface_loss(
            cosines,
            targets,
            margin_rad=self.margin_rad,
            scale=self.scale,
            straight_through=self.straight_through,
            weight=self.weight,
            reduction=reduction,
        )
