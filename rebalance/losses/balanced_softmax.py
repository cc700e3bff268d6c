"""Balanced softmax: training under the training set's prior, so that plain logits suit a balanced test set.

    ℓ_i = w_y CE(z + log π, y),  π = n / Σ n

Adding log n instead, as the original does, shifts every column alike and changes nothing. Only for training: no prior
is added at test time. Cosine logits are to be multiplied by their scale first, or the prior overwhelms them.
Source: Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS 2020, eq. 3;
jiawei-ren/BalancedMetaSoftmax-Classification, loss/BalancedSoftmaxLoss.py.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from rebalance.losses._checks import check_batch, check_counts_fit
from rebalance.losses._counts import PerClass, class_prior, optional_per_class
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction
from rebalance.losses._repr import told_options
from rebalance.losses.cross_entropy import cross_entropy_loss


def log_class_prior(counts: PerClass) -> Tensor:
    """Log π_c, float64 (C,); -inf for a class without an image.

    The logarithm is taken of float64 counts; the original takes it in the logits' dtype, where a class of more than
    65,504 images is infinite in float16.
    """
    return class_prior(counts).log()


def balanced_softmax_loss(
    logits: Tensor,
    targets: Tensor,
    log_prior: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Balanced softmax loss.

    A class without an image is masked: it takes no probability and gets no gradient. As a target it contradicts its
    count, and the loss is inf with finite gradients, as in the original.

    Args:
        logits: (B, C).
        targets: Class ids, (B,).
        log_prior: log π_c, (C,), see `log_class_prior`.
        weight: Class weights, (C,).
        reduction: "mean", "weighted_mean", "sum" or "none".
    """
    check_batch(logits, targets, log_prior=log_prior)
    with full_precision(logits) as z:
        return cross_entropy_loss(z + log_prior.to(z.dtype), targets, weight=weight, reduction=reduction)


@final
class BalancedSoftmaxLoss(nn.Module):
    """`balanced_softmax_loss` with the prior of its counts in a buffer.

    Args:
        counts: Training images of each class, (C,).
        weight: Class weights, (C,).
    """

    log_prior: Tensor
    weight: Tensor | None

    extra_repr = told_options

    def __init__(self, counts: PerClass, *, weight: PerClass | None = None) -> None:
        super().__init__()
        self.register_buffer("log_prior", log_class_prior(counts), persistent=False)
        self.register_buffer("weight", optional_per_class(weight, "weight"), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of logits (B, C) and class ids (B,)."""
        check_counts_fit(logits, self.log_prior)
        return balanced_softmax_loss(logits, targets, self.log_prior, weight=self.weight, reduction=reduction)
