"""Class-balanced losses: any loss, weighted by the inverse effective number of the label's class.

    ℓ_i = w_{y_i} L(z_i, y_i),  w_c ∝ 1 / E_c,  E_c = (1 - β^n_c) / (1 - β),  Σ_c w_c = C

with softmax cross entropy, sigmoid cross entropy or the sigmoid focal loss for L, each averaged over B.
Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, eq. 4;
richardaecn/class-balanced-loss, src/cifar_main.py.

The port vandit15/Class-balanced-loss-pytorch agrees for the focal loss only. Its "softmax" is an element-wise binary
cross entropy of softmax probabilities over B·C, which saturates at 100, and its "sigmoid" raises: neither is imitated.
"""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from torch import Tensor, nn

from rebalance.losses._checks import check_counts_fit, check_gamma
from rebalance.losses._counts import PerClass, positive_counts
from rebalance.losses._reduction import Reduction
from rebalance.losses._repr import told_options
from rebalance.losses.cross_entropy import cross_entropy_loss
from rebalance.losses.focal_sigmoid import focal_sigmoid_loss
from rebalance.losses.sigmoid_cross_entropy import sigmoid_cross_entropy_loss


def effective_number_weight(counts: PerClass, *, cb_beta: float | Literal["auto"] = 0.9999) -> Tensor:
    """Class weights ∝ 1 / E_c that sum to C, float64 (C,).

    1 - β^n is computed as -expm1(n log1p(β - 1)), which keeps its digits as β → 1.

    Args:
        counts: Training images of each class, (C,).
        cb_beta: β in [0, 1): 0 gives ones, β → 1 inverse frequency. "auto" is 1 - 1 / n_max, which ties it to the data;
            0.9999 is that of the paper's scripts. A β too small for the data gives weights near one.

    Raises:
        ValueError: β outside [0, 1), or a class without an image (the original gives it NaN and all others 0).

    Examples:
        >>> effective_number_weight([9, 1], cb_beta=0.9)
        tensor([0.2807, 1.7193], dtype=torch.float64)
    """
    n = positive_counts(counts)
    beta = _resolve_beta(cb_beta, n)
    if beta == 0.0:
        return torch.ones_like(n)
    inverse = -1.0 / torch.expm1(n * torch.log1p(torch.tensor(beta - 1.0, dtype=n.dtype)))
    return inverse * (len(n) / inverse.sum())


def _resolve_beta(cb_beta: float | Literal["auto"], counts: Tensor) -> float:
    if cb_beta == "auto":
        return 1.0 - 1.0 / float(counts.max())
    beta = float(cb_beta) if isinstance(cb_beta, (int, float)) else math.nan
    if not 0.0 <= beta < 1.0:
        raise ValueError(f"expected cb_beta in [0, 1) or 'auto'; got {cb_beta!r}; use a number such as 0.9999")
    return beta


@final
class ClassBalancedSoftmaxLoss(nn.Module):
    """Class-balanced softmax cross entropy.

    With reduction "mean" that of the paper's code; BagofTricks-LT's ClassBalanceCE is "weighted_mean", β = 0.999.

    Args:
        counts: Training images of each class, (C,).
        cb_beta: β of the effective number, or "auto".
    """

    weight: Tensor

    extra_repr = told_options

    def __init__(self, counts: PerClass, *, cb_beta: float | Literal["auto"] = 0.9999) -> None:
        super().__init__()
        self.register_buffer("weight", effective_number_weight(counts, cb_beta=cb_beta), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of logits (B, C) and class ids (B,)."""
        check_counts_fit(logits, self.weight)
        return cross_entropy_loss(logits, targets, weight=self.weight, reduction=reduction)


@final
class ClassBalancedSigmoidLoss(nn.Module):
    """Class-balanced one-vs-all sigmoid cross entropy, summed over classes.

    Args:
        counts: Training images of each class, (C,).
        cb_beta: β of the effective number, or "auto".
    """

    weight: Tensor

    extra_repr = told_options

    def __init__(self, counts: PerClass, *, cb_beta: float | Literal["auto"] = 0.9999) -> None:
        super().__init__()
        self.register_buffer("weight", effective_number_weight(counts, cb_beta=cb_beta), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of logits (B, C) and class ids (B,)."""
        check_counts_fit(logits, self.weight)
        return sigmoid_cross_entropy_loss(logits, targets, weight=self.weight, reduction=reduction)


@final
class ClassBalancedFocalLoss(nn.Module):
    """Class-balanced sigmoid focal loss.

    Args:
        counts: Training images of each class, (C,).
        cb_beta: β of the effective number, or "auto".
        gamma: γ >= 0; 1 in the paper's script, which searched {0.5, 1, 2}; BagofTricks-LT takes 0.5 with β = 0.999.
    """

    weight: Tensor

    extra_repr = told_options

    def __init__(self, counts: PerClass, *, cb_beta: float | Literal["auto"] = 0.9999, gamma: float = 1.0) -> None:
        super().__init__()
        check_gamma(gamma)
        self.gamma = gamma
        self.register_buffer("weight", effective_number_weight(counts, cb_beta=cb_beta), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of logits (B, C) and class ids (B,)."""
        check_counts_fit(logits, self.weight)
        return focal_sigmoid_loss(logits, targets, gamma=self.gamma, weight=self.weight, reduction=reduction)
