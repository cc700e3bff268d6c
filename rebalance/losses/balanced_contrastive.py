"""Balanced contrastive loss (BCL): class prototypes complete the batch, and each class counts once in the denominator.

    ℓ_i = -1/|P(i)| Σ_{p∈P(i)} log [ exp z_ip / Σ_c 1/|A_c(i)| Σ_{a∈A_c(i)} exp z_ia ],  z_ij = f_i·f_j / T

where A(i) holds all views of the batch and one prototype of every class, without i itself; A_c(i) those of class c,
and P(i) those of i's class. The recipe adds logit-adjusted cross entropy on another view: CE + 0.35 ℓ with T = 0.07 on
ImageNet-LT and iNaturalist, 2 CE + 0.6 ℓ with T = 0.1 on CIFAR-LT.
Source: Zhu et al., Balanced Contrastive Learning for Long-Tailed Visual Recognition, CVPR 2022;
FlamieZhu/Balanced-Contrastive-Learning, loss/contrastive.py.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from rebalance.losses._checks import check_targets, check_temperature
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction, reduce_losses
from rebalance.losses._repr import told_options


def balanced_contrastive_loss(
    views: Tensor,
    targets: Tensor,
    prototypes: Tensor,
    *,
    temperature: float = 0.1,
    reduction: Reduction = "mean",
) -> Tensor:
    """BCL with every view as an anchor.

    Args:
        views: (B, V, D) unit-length embeddings; V = 2 in the paper.
        targets: Class ids, (B,).
        prototypes: (C, D) unit-length embeddings of the classes; the gradient reaches them.
        temperature: T.
        reduction: "mean", "sum" or "none"; (B,) holds the mean over an image's views.

    Raises:
        ValueError: Shapes that do not fit, or a temperature that is not positive.
    """
    check_temperature(temperature)
    if views.ndim != 3 or prototypes.ndim != 2 or views.shape[2] != prototypes.shape[1]:
        raise ValueError(
            "expected views (B, V, D) and prototypes (C, D); "
            f"got {tuple(views.shape)} and {tuple(prototypes.shape)}; stack the views on dimension 1"
        )
    check_targets(targets, len(views))
    n_views, n_classes = views.shape[1], len(prototypes)
    own = targets.repeat(n_views)
    labels = torch.cat([own, torch.arange(n_classes, device=own.device)])  # (A + C,)
    with full_precision(views) as f:
        anchors = f.transpose(0, 1).flatten(0, 1)  # (A, D), view-major, A = V·B
        rows = torch.cat([anchors, prototypes.to(f.dtype)])  # (A + C, D)
        class_sizes = rows.new_zeros(n_classes).index_add(0, labels, torch.ones_like(labels, dtype=rows.dtype))
        n_positives = class_sizes[own] - 1  # |A_c(i)| of i's own class; a prototype makes each of the others at least 1

        pair = (anchors / temperature) @ rows.T  # (A, A + C)
        log_sizes = torch.where(own[:, None] == labels, n_positives.log()[:, None], class_sizes.log()[labels])
        log_denominator = (pair - log_sizes).fill_diagonal_(-torch.inf).logsumexp(1)

        # Σ_{p∈P(i)} f_i·f_p = f_i·(S - f_i) with S the sum over i's class.
        class_sums = rows.new_zeros(n_classes, rows.shape[1]).index_add(0, labels, rows)
        positives = (anchors * (class_sums[own] - anchors)).sum(1) / temperature
        losses = (log_denominator - positives / n_positives).view(n_views, len(views))
        return reduce_losses(losses.mean(0), reduction)


@final
class BalancedContrastiveLoss(nn.Module):
    """`balanced_contrastive_loss` as a module.

    Args:
        temperature: T.
    """

    extra_repr = told_options

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def forward(self, views: Tensor, targets: Tensor, prototypes: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of views (B, V, D), class ids (B,) and prototypes (C, D)."""
        return balanced_contrastive_loss(views, targets, prototypes, temperature=self.temperature, reduction=reduction)
