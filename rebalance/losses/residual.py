"""ResLT: branches that specialise, one on all classes, one without the head, one on the tail, and their sum.

With branch logits z_ir and the classes G_r that branch r answers for (nested: all ⊇ medium and tail ⊇ tail),

    branch = Σ_r Σ_{i: y_i∈G_r} -log(softmax(z_ir)[y_i] + ε) / |{(i, r): y_i ∈ G_r}|
    fused  = 1/B Σ_i CE(Σ_r z_ir, y_i)
    L      = α branch + (1 - α) fused

ε = 1e-7 bounds a term by 16.1 and takes the gradient from samples that are very wrong; ε = 0 is cross entropy.
Source: Cui et al., ResLT: Residual Learning for Long-tailed Recognition, TPAMI 2022; jiequancui/ResLT, the training
scripts, whose `--beta` is the paper's α.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.losses._checks import check_not_negative, check_share, check_targets
from rebalance.losses._counts import PerClass, per_class
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction, reduce_losses
from rebalance.losses._repr import told_options


def branch_groups(counts: PerClass, *, shares: Sequence[float] = (1.0, 0.65, 0.3)) -> Tensor:
    """Which classes each branch answers for, bool (R, C): branch r has the round(share_r · C) rarest.

    The original's class bounds as shares: CIFAR-10-LT (1, 0.8, 0.6), CIFAR-100-LT (1, 0.65, 0.3), ImageNet-LT
    (1, 0.825, 0.22), iNaturalist 2018 (1, 6600 / 8142). Of equally frequent classes the last ones count as rarer.

    Args:
        counts: Training images of each class, (C,).
        shares: One for each branch, in (0, 1].

    Raises:
        ValueError: No share, or one out of range.
    """
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"expected shares in (0, 1]; got {tuple(shares)}; give each branch its share of the classes")
    rarest_last = per_class(counts, "counts").argsort(descending=True, stable=True)
    n_classes = len(rarest_last)
    groups = torch.zeros(len(shares), n_classes, dtype=torch.bool)
    for group, share in zip(groups, shares, strict=True):
        group[rarest_last[n_classes - round(share * n_classes) :]] = True
    return groups


def residual_branch_loss(
    logits: Tensor, targets: Tensor, groups: Tensor, *, eps: float = 1e-7, label_smoothing: float = 0.0
) -> Tensor:
    """The branch term for each image, (B,), scaled so that their mean is the term; arguments as in `residual_loss`."""
    n_images, n_branches, _ = logits.shape
    with full_precision(logits) as z:
        losses = _cross_entropy(z, targets[:, None].expand(-1, n_branches), eps, label_smoothing)  # (B, R)
        answers = groups.to(targets.device).T[targets]  # (B, R)
        n_answers = answers.sum().clamp(min=1)
        return torch.where(answers, losses, 0.0).sum(1) * n_images / n_answers


def residual_fused_loss(logits: Tensor, targets: Tensor, *, eps: float = 0.0, label_smoothing: float = 0.0) -> Tensor:
    """The fused term for each image, (B,); arguments as in `residual_loss`, where eps is `fused_eps`."""
    with full_precision(logits) as z:
        return _cross_entropy(z.sum(1), targets, eps, label_smoothing)


def residual_loss(
    logits: Tensor,
    targets: Tensor,
    groups: Tensor,
    *,
    alpha: float = 0.995,
    eps: float = 1e-7,
    fused_eps: float = 0.0,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """ResLT's loss.

    Args:
        logits: (B, R, C), of the R branches.
        targets: Class ids, (B,).
        groups: (R, C) bool, the classes that each branch answers for, see `branch_groups`.
        alpha: Weight of the branch term: 0.998 and 0.995 on CIFAR-10 and -100-LT (IF 100), 0.99 on ImageNet-LT, 0.85
            on iNaturalist.
        eps: ε of the branch term.
        fused_eps: ε of the fused term: 0 on CIFAR and iNaturalist, 1e-7 on ImageNet-LT.
        label_smoothing: s of both terms: 1 - s on the class, s / (C - 1) elsewhere.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: Shapes that do not fit, or numbers out of range.
    """
    if logits.ndim != 3 or groups.shape != logits.shape[1:] or groups.dtype != torch.bool:
        raise ValueError(
            "expected logits (B, R, C) and bool groups (R, C); "
            f"got {tuple(logits.shape)} and {groups.dtype} {tuple(groups.shape)}; stack the branches on dimension 1"
        )
    check_targets(targets, len(logits))
    _check_options(alpha, eps, fused_eps, label_smoothing)
    branch = residual_branch_loss(logits, targets, groups, eps=eps, label_smoothing=label_smoothing)
    fused = residual_fused_loss(logits, targets, eps=fused_eps, label_smoothing=label_smoothing)
    return reduce_losses(alpha * branch + (1 - alpha) * fused, reduction)


def _cross_entropy(logits: Tensor, targets: Tensor, eps: float, label_smoothing: float) -> Tensor:
    """-Σ_c t_c log(softmax(z)_c + ε) over the last dimension, t smoothed."""
    log_p = (logits.softmax(-1) + eps).log() if eps else F.log_softmax(logits, -1)
    hit = log_p.gather(-1, targets[..., None]).squeeze(-1)
    if not label_smoothing:
        return -hit
    missed = (log_p.sum(-1) - hit) / (logits.shape[-1] - 1)
    return -(1 - label_smoothing) * hit - label_smoothing * missed


def _check_options(alpha: float, eps: float, fused_eps: float, label_smoothing: float) -> None:
    check_share(alpha, "alpha")
    check_share(label_smoothing, "label_smoothing")
    check_not_negative(eps, "eps", "0 is cross entropy")
    check_not_negative(fused_eps, "fused_eps", "0 is cross entropy")


@final
class ResidualLoss(nn.Module):
    """`residual_loss` with its groups in a buffer.

    Args:
        groups: (R, C) bool, see `branch_groups`.
        alpha: Weight of the branch term.
        eps: ε of the branch term.
        fused_eps: ε of the fused term.
        label_smoothing: s.
    """

    groups: Tensor

    extra_repr = told_options

    def __init__(
        self,
        groups: Tensor,
        *,
        alpha: float = 0.995,
        eps: float = 1e-7,
        fused_eps: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        _check_options(alpha, eps, fused_eps, label_smoothing)
        self.register_buffer("groups", groups, persistent=False)
        self.alpha = alpha
        self.eps = eps
        self.fused_eps = fused_eps
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of branch logits (B, R, C) and class ids (B,)."""
        return residual_loss(
            logits,
            targets,
            self.groups,
            alpha=self.alpha,
            eps=self.eps,
            fused_eps=self.fused_eps,
            label_smoothing=self.label_smoothing,
            reduction=reduction,
        )
