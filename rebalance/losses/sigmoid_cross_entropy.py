"""One-vs-all sigmoid cross entropy: every class is a yes-or-no question of its own.

    ℓ_i = w_{y_i} [ softplus(-z_{i,y_i}) + Σ_{c ≠ y_i} softplus(z_ic) ]

The sum over classes is not divided by C: official code of Cui et al. divides by B alone. The port
vandit15/Class-balanced-loss-pytorch divides by B·C, which is C times smaller.
"""

from __future__ import annotations

import math
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.losses._checks import check_batch
from rebalance.losses._counts import PerClass, optional_per_class
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction, weigh_and_reduce
from rebalance.losses._repr import told_options


def sigmoid_bias(n_classes: int) -> float:
    """Initial bias of a classifier that is trained with a sigmoid loss, -log(C - 1), so that every p starts at 1 / C.

    With a bias of 0 the first steps go to pushing C - 1 negatives down. Exempt this bias from weight decay.
    Source: richardaecn/class-balanced-loss, src/cifar_main.py.

    Raises:
        ValueError: Fewer than two classes.

    Examples:
        >>> round(sigmoid_bias(10), 3)
        -2.197
    """
    if n_classes < 2:
        raise ValueError(f"expected at least 2 classes; got {n_classes}; a single class needs no classifier")
    return -math.log(n_classes - 1)


def right_side(logits: Tensor, targets: Tensor) -> Tensor:
    """How far each of the C answers is on its right side, (B, C): the label's logit, of the others the negative."""
    label = targets[:, None]
    return (-logits).scatter(1, label, logits.gather(1, label))


def sigmoid_cross_entropy_loss(
    logits: Tensor, targets: Tensor, *, weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """One-vs-all sigmoid cross entropy, summed over classes.

    Args:
        logits: (B, C).
        targets: Class ids, (B,).
        weight: Class weights, (C,); the weight of the label multiplies the whole row.
        reduction: "mean", "weighted_mean", "sum" or "none".
    """
    check_batch(logits, targets, weight=weight)
    with full_precision(logits) as z:
        losses = -F.logsigmoid(right_side(z, targets)).sum(dim=1)
        return weigh_and_reduce(losses, targets, weight, reduction)


@final
class SigmoidCrossEntropyLoss(nn.Module):
    """`sigmoid_cross_entropy_loss` with its class weights in a buffer.

    Args:
        weight: Class weights, (C,).
    """

    weight: Tensor | None

    extra_repr = told_options

    def __init__(self, weight: PerClass | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", optional_per_class(weight, "weight"), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of logits (B, C) and class ids (B,)."""
        return sigmoid_cross_entropy_loss(logits, targets, weight=self.weight, reduction=reduction)
