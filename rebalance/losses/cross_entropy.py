"""Softmax cross entropy with class weights.

    ℓ_i = w_{y_i} (log Σ_c exp z_ic - z_{i,y_i})

Both means in use have a name: "mean" divides by B (imbalanced-DL, Cui's TensorFlow code), "weighted_mean" by Σ w_y
(torch.nn.CrossEntropyLoss(weight), LDAM-DRW). They differ by the factor mean(w_y). Over gradient accumulation and
several processes only "mean" adds up to the loss of the whole batch.
"""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.losses._checks import check_batch
from rebalance.losses._counts import PerClass, optional_per_class
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction, weigh_and_reduce
from rebalance.losses._repr import told_options


def cross_entropy_loss(
    logits: Tensor, targets: Tensor, *, weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """Softmax cross entropy.

    Logits of ±1e4 and columns of -inf are safe. Weights that are all 0 in a batch give 0 under "weighted_mean", where
    torch gives 0 / 0 = NaN.

    Args:
        logits: (B, C).
        targets: Class ids in [0, C), (B,); there is no ignored id.
        weight: Class weights, (C,).
        reduction: "mean", "weighted_mean", "sum" or "none"; "none" includes the class weight.

    Returns:
        A scalar, or (B,) for "none"; in float32 or wider.
    """
    check_batch(logits, targets, weight=weight)
    with full_precision(logits) as z:
        losses = -F.log_softmax(z, dim=1).gather(1, targets[:, None]).squeeze(1)
        return weigh_and_reduce(losses, targets, weight, reduction)


@final
class CrossEntropyLoss(nn.Module):
    """`cross_entropy_loss` with its class weights in a buffer.

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
        return cross_entropy_loss(logits, targets, weight=self.weight, reduction=reduction)
