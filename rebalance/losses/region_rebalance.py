"""Region rebalance: each class of a batch of label maps is one row, classified under the classes' image frequency.

With region logits z_k, one row for each of the R classes that the batch has, and their classes y_k,

    L = 1/R Σ_k w_{y_k} Σ_c -t_kc log softmax(z_k + a)_c
    t_kc = 1 - s where c = y_k, s / (C - 1) elsewhere
    a_c = log(π_c + 1e-12),  π_c = images with a pixel of c / Σ over the classes

It is logit adjustment (τ = 1) with label smoothing, of regions in place of pixels: how often a class is in an image is
far less skewed than its share of the pixels. The original's `smooth` is 1 - s; its `scale` is in the logits already,
see `rebalance.region_rebalance.RegionBranch`; its weight, 1, is the factor of L beside the pixels' loss.
Source: Cui et al., Region Rebalance for Long-Tailed Semantic Segmentation, arXiv 2204.01969;
dvlab-research/Parametric-Contrastive-Learning, GPaCo/Seg/mmseg/models/decode_heads/uper_head_ceco.py, UPerHead_cecol.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.losses._checks import check_batch, check_counts_fit, check_share
from rebalance.losses._counts import PerClass, optional_per_class
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction, reduce_losses, weigh_and_reduce
from rebalance.losses._repr import told_options
from rebalance.losses.logit_adjustment import logit_adjustments


def region_rebalance_loss(
    logits: Tensor,
    targets: Tensor,
    adjustments: Tensor,
    present: Tensor | None = None,
    *,
    label_smoothing: float = 0.5,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Region rebalance loss.

    Args:
        logits: (R, C), of regions.
        targets: Their classes, (R,).
        adjustments: a_c, (C,), `logit_adjustments` of the number of images that have each class; finite, unless
            label_smoothing is 0.
        present: Rows that count, (R,) bool; the others cost nothing and are in no mean. None for all. Where no row
            counts, the loss is 0 and so are its gradients.
        label_smoothing: s; 0.5 on ADE20K. 0 is cross entropy.
        weight: Class weights, (C,).
        reduction: "mean", "weighted_mean", "sum" or "none".

    Raises:
        ValueError: Shapes that do not fit, or an s outside [0, 1].
    """
    check_batch(logits, targets, adjustments=adjustments, weight=weight)
    check_share(label_smoothing, "label_smoothing")
    with full_precision(logits) as z:
        losses = _smoothed_cross_entropy(z + adjustments.to(z.dtype), targets, label_smoothing)  # (R,)
        if present is None:
            return weigh_and_reduce(losses, targets, weight, reduction)
        if present.shape != targets.shape or present.dtype != torch.bool:
            raise ValueError(
                f"expected present of shape {tuple(targets.shape)}, bool; got {present.dtype} {tuple(present.shape)}; "
                "pass one truth value for each row"
            )
        losses = torch.where(present, weigh_and_reduce(losses, targets, weight, "none"), 0.0)
        if reduction == "mean":
            return losses.sum() / present.sum().clamp(min=1)
        weights = present.to(z.dtype) if weight is None else torch.where(present, weight.to(z.dtype)[targets], 0.0)
        return reduce_losses(losses, reduction, weights)


def _smoothed_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Σ_c -t_kc log softmax(z_k)_c, (R,)."""
    log_p = F.log_softmax(logits, dim=1)
    hit = log_p.gather(1, targets[:, None]).squeeze(1)
    if not label_smoothing:  # 0 · -inf, of a masked class, would be NaN
        return -hit
    others = max(logits.shape[1] - 1, 1)  # the original divides by zero where there is one class
    return -(1 - label_smoothing) * hit - label_smoothing / others * (log_p.sum(dim=1) - hit)


@final
class RegionRebalanceLoss(nn.Module):
    """`region_rebalance_loss` with the adjustments of its counts in a buffer.

    Args:
        counts: Training images that have each class, (C,), see `rebalance.region_rebalance.images_with_class`; their
            shares do as well.
        label_smoothing: s; 0.5 on ADE20K.
        weight: Class weights, (C,).
    """

    adjustments: Tensor
    weight: Tensor | None

    extra_repr = told_options

    def __init__(self, counts: PerClass, *, label_smoothing: float = 0.5, weight: PerClass | None = None) -> None:
        super().__init__()
        check_share(label_smoothing, "label_smoothing")
        self.register_buffer("adjustments", logit_adjustments(counts), persistent=False)
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", optional_per_class(weight, "weight"), persistent=False)

    def forward(
        self, logits: Tensor, targets: Tensor, present: Tensor | None = None, *, reduction: Reduction = "mean"
    ) -> Tensor:
        """Loss of region logits (R, C), their classes (R,), and which of the rows count, (R,) bool."""
        check_counts_fit(logits, self.adjustments)
        return region_rebalance_loss(
            logits,
            targets,
            self.adjustments,
            present,
            label_smoothing=self.label_smoothing,
            weight=self.weight,
            reduction=reduction,
        )
