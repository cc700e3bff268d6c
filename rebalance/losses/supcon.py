"""Supervised contrastive loss: views of one class attract each other, all others repel.

    ℓ_a = (T / T_base) [ log Σ_{k ∈ A(a)} exp(f_a·f_k / T) - mean_{p ∈ P(a)} f_a·f_p / T ]

A(a) is every other view of the batch, P(a) those of a's class, a's own other views included; 0 where P(a) is empty.
Without targets the positives are the sample's own other views, which is SimCLR's NT-Xent.
Source: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, eq. 2 (L_out); Chen et al., A Simple Framework for
Contrastive Learning of Visual Representations, ICML 2020, eq. 1; HobbitLong/SupContrast, losses.py.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn

from rebalance.losses._checks import check_targets, check_temperature
from rebalance.losses._counts import PerClass, optional_per_class
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction, reduce_losses, weigh_and_reduce
from rebalance.losses._repr import told_options

Mode = Literal["all", "one"]


def supcon_loss(
    views: Tensor,
    targets: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    temperature: float = 0.07,
    base_temperature: float = 0.07,
    mode: Mode = "all",
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Supervised contrastive loss; with neither `targets` nor `mask`, SimCLR's.

    Self-similarities are left out before the log-sum-exp, so that no temperature and no length of features underflows,
    where the original gives NaN. A batch of a single view has nothing to compare: 0 with zero gradients, where the
    original gives NaN.

    Args:
        views: (B, V, D), normalised to length 1 over D by the caller; (B, V, ...) is flattened to that.
        targets: Class ids, (B,).
        mask: In place of `targets`, (B, B): entry (i, j) is 1 where j is a positive of i. It may be asymmetric.
        temperature: T; 0.07 in the paper's code, 0.1 in its recipes, 0.5 for SimCLR.
        base_temperature: T_base rescales the loss and nothing else. It stays 0.07 when T changes; set it to T for the
            plain loss.
        mode: "all": every view is an anchor; "one": the first view of each sample. All views are compared with in both.
        weight: Class weights of the anchors, (C,); needs `targets`.
        reduction: "mean", "weighted_mean", "sum" or "none"; a sample's loss is the mean of those of its anchors.
            Samples without a positive count in the mean with 0.

    Raises:
        ValueError: Shapes that do not fit, both `targets` and `mask`, or an option out of range.
    """
    if views.ndim < 3:
        raise ValueError(
            f"expected views of shape (B, V, D); got {tuple(views.shape)}; features[:, None] makes one view of (B, D)"
        )
    check_contrast(mode, temperature, base_temperature)
    if targets is None and weight is not None:
        raise ValueError("expected targets beside class weights; got weight alone; pass the class ids of the samples")
    with full_precision(views.flatten(2)) as v:
        anchor_losses = (temperature / base_temperature) * contrastive_anchor_losses(
            v, _positives(v, targets, mask), temperature, n_anchor_views=views.shape[1] if mode == "all" else 1
        )
        losses = anchor_losses.mean(dim=1)
        if targets is None:
            return reduce_losses(losses, reduction)
        return weigh_and_reduce(losses, targets, weight, reduction)


def check_contrast(mode: str, temperature: float, base_temperature: float) -> None:
    """Refuses an unknown mode, and temperatures that are not positive and finite."""
    if mode not in ("all", "one"):
        raise ValueError(f"expected mode 'all' or 'one'; got {mode!r}; name one of them")
    check_temperature(temperature)
    check_temperature(base_temperature, "a base temperature")


def _positives(views: Tensor, targets: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Which samples are positives of which, (B, B) of the views' dtype; None for the sample itself alone."""
    batch_size = views.shape[0]
    if targets is not None and mask is not None:
        raise ValueError("expected targets or a mask; got both; a mask already says what targets would")
    if targets is not None:
        check_targets(targets, batch_size)
        return (targets[:, None] == targets).to(views.dtype)
    if mask is not None and mask.shape != (batch_size, batch_size):
        raise ValueError(
            f"expected a mask of shape ({batch_size}, {batch_size}); got {tuple(mask.shape)}; "
            "give one row and one column for each sample, not for each view"
        )
    return None if mask is None else mask.to(views.dtype)


def contrastive_anchor_losses(
    views: Tensor, positives: Tensor | None, temperature: float, *, n_anchor_views: int
) -> Tensor:
    """Losses of the anchors, (B, n_anchor_views), without the factor T / T_base."""
    batch_size, n_views, _ = views.shape
    contrast = views.transpose(0, 1).flatten(0, 1)  # (V·B, D), view by view
    anchors = contrast[: n_anchor_views * batch_size]
    similarity = (anchors / temperature) @ contrast.T  # (A, V·B)
    similarity = similarity.fill_diagonal_(-torch.inf)
    log_denominator = similarity.logsumexp(dim=1).view(n_anchor_views, batch_size).T  # (B, A / B)

    # The sum over P(a) is a product with the sum of its members, so that nothing else is as large as (A, V·B).
    members = views.sum(dim=1)  # (B, D)
    if positives is None:
        own = views.new_ones(batch_size)
        n_members = own
    else:
        own = positives.diagonal()  # 1 where a sample is its own positive
        n_members = positives.sum(dim=1)
        members = positives @ members
    n_positives = (n_views * n_members - own)[:, None]  # (B, 1), without the anchor itself
    anchored = views[:, :n_anchor_views]  # (B, A / B, D)
    attraction = (anchored * (members[:, None] - own[:, None, None] * anchored)).sum(dim=2) / temperature
    has_positive = n_positives > 1e-6  # as in the original, which allows a mask of fractions; a lone view has none
    losses = log_denominator - attraction / torch.where(has_positive, n_positives, 1.0)
    return torch.where(has_positive, losses, 0.0)


@final
class SupConLoss(nn.Module):
    """`supcon_loss` with its options.

    Args:
        temperature: T.
        base_temperature: T_base, which rescales the loss.
        mode: "all" or "one".
        weight: Class weights of the anchors, (C,).
    """

    weight: Tensor | None

    extra_repr = told_options

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        base_temperature: float = 0.07,
        mode: Mode = "all",
        weight: PerClass | None = None,
    ) -> None:
        super().__init__()
        check_contrast(mode, temperature, base_temperature)
        self.temperature = temperature
        self.base_temperature = base_temperature
        self.mode = mode
        self.register_buffer("weight", optional_per_class(weight, "weight"), persistent=False)

    def forward(
        self, views: Tensor, targets: Tensor | None = None, *, mask: Tensor | None = None, reduction: Reduction = "mean"
    ) -> Tensor:
        """Loss of views (B, V, D) and class ids (B,)."""
        return supcon_loss(
            views,
            targets,
            mask=mask,
            temperature=self.temperature,
            base_temperature=self.base_temperature,
            mode=self.mode,
            weight=self.weight,
            reduction=reduction,
        )
