"""Label-aware smoothing: frequent classes, of which the model is too sure, are smoothed more.

    ℓ_i = w_y [(1 - e_y) CE_i + e_y mean_c(-log p_ic)]
    e_c = tail + (head - tail) f(r_c),  r_c = (n_c - n_min) / (n_max - n_min)
    f(r) = sin(π r / 2) concave | r linear | 1 - cos(π r / 2) convex | r^power exp

Source: Zhong et al., Improving Calibration for Long-Tailed Recognition, CVPR 2021;
Jia-Research-Lab/MiSLAS, methods.py. The paper spreads e over the other C - 1 classes, its code over all C, label
included, and its authors confirmed the code: that is the default, the paper's form an option.
"""

from __future__ import annotations

import math
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.losses._checks import check_batch, check_counts_fit
from rebalance.losses._counts import PerClass, optional_per_class, positive_counts
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction, weigh_and_reduce
from rebalance.losses._repr import told_options

Shape = Literal["concave", "linear", "convex", "exp"]


def label_smoothing_by_class(
    counts: PerClass,
    *,
    smooth_head: float = 0.4,
    smooth_tail: float = 0.1,
    shape: Shape = "concave",
    power: float | None = None,
) -> Tensor:
    """Smoothing e_c, float64 (C,): `smooth_head` for the largest class, `smooth_tail` for the smallest.

    Classes that are all of one size have no tail and get `smooth_head`; the original gives 0 / 0 = NaN.

    Args:
        counts: Training images of each class, (C,).
        smooth_head: MiSLAS: 0.3 / 0.2 / 0.1 on CIFAR-10-LT and 0.4 / 0.3 / 0.2 on CIFAR-100-LT (IF 100 / 50 / 10), 0.3
            on ImageNet-LT and iNaturalist, 0.4 on Places-LT.
        smooth_tail: 0.1 with a head of 0.4, else 0.
        shape: The f above.
        power: The exponent for shape "exp", and only for it.

    Raises:
        ValueError: Unknown shape, a smoothing outside [0, 1], a power <= 0, or one without shape "exp" or the reverse.
    """
    for name, value in (("smooth_head", smooth_head), ("smooth_tail", smooth_tail)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"expected {name} in [0, 1]; got {value!r}; it is the share of the label given away")
    if (power is not None) != (shape == "exp"):
        raise ValueError(
            f"expected a power with shape 'exp' and with no other; got shape {shape!r}, power {power!r}; "
            "set both or neither"
        )
    if power is not None and not power > 0:
        raise ValueError(f"expected power > 0; got {power!r}; 1 is linear")
    n = positive_counts(counts)
    spread = n.max() - n.min()
    r = (n - n.min()) / spread if spread > 0 else torch.ones_like(n)
    if shape == "concave":
        f = torch.sin(math.pi / 2 * r)
    elif shape == "linear":
        f = r
    elif shape == "convex":
        f = 1.0 - torch.cos(math.pi / 2 * r)
    elif shape == "exp" and power is not None:
        f = r**power
    else:
        raise ValueError(f"expected a shape out of concave, linear, convex, exp; got {shape!r}; name one of them")
    return smooth_tail + (smooth_head - smooth_tail) * f


def label_aware_smoothing_loss(
    logits: Tensor,
    targets: Tensor,
    smoothing: Tensor,
    *,
    to_others_only: bool = False,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy with a label smoothing that depends on the class.

    Args:
        logits: (B, C).
        targets: Class ids, (B,).
        smoothing: e_c in [0, 1], (C,), see `label_smoothing_by_class`.
        to_others_only: Spread e over the other C - 1 classes, as in the paper.
        weight: Class weights, (C,).
        reduction: "mean", "weighted_mean", "sum" or "none".
    """
    check_batch(logits, targets, smoothing=smoothing, weight=weight)
    with full_precision(logits) as z:
        log_p = F.log_softmax(z, dim=1)
        e = smoothing.to(z.dtype)[targets]  # (B,)
        at_label = log_p.gather(1, targets[:, None]).squeeze(1)
        spread = log_p.sum(dim=1)
        spread = (spread - at_label) / (z.shape[1] - 1) if to_others_only else spread / z.shape[1]
        losses = -(1.0 - e) * at_label - torch.where(e > 0, e * spread, 0.0)  # without it 0 · -inf, of a masked class
        return weigh_and_reduce(losses, targets, weight, reduction)


@final
class LabelAwareSmoothingLoss(nn.Module):
    """`label_aware_smoothing_loss` with the smoothing of its counts in a buffer.

    Args:
        counts: Training images of each class, (C,).
        smooth_head: Smoothing of the largest class.
        smooth_tail: Smoothing of the smallest class.
        shape: How it falls in between.
        power: The exponent for shape "exp".
        to_others_only: Spread e over the other C - 1 classes, as in the paper.
        weight: Class weights, (C,).
    """

    smoothing: Tensor
    weight: Tensor | None

    extra_repr = told_options

    def __init__(
        self,
        counts: PerClass,
        *,
        smooth_head: float = 0.4,
        smooth_tail: float = 0.1,
        shape: Shape = "concave",
        power: float | None = None,
        to_others_only: bool = False,
        weight: PerClass | None = None,
    ) -> None:
        super().__init__()
        smoothing = label_smoothing_by_class(
            counts, smooth_head=smooth_head, smooth_tail=smooth_tail, shape=shape, power=power
        )
        self.register_buffer("smoothing", smoothing, persistent=False)
        self.to_others_only = to_others_only
        self.register_buffer("weight", optional_per_class(weight, "weight"), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of logits (B, C) and class ids (B,)."""
        check_counts_fit(logits, self.smoothing)
        return label_aware_smoothing_loss(
            logits,
            targets,
            self.smoothing,
            to_others_only=self.to_others_only,
            weight=self.weight,
            reduction=reduction,
        )
