"""PaCo and GPaCo: supervised contrast in which the classifier adds one learnable key for each class, its centre.

With the centre logit z_ic = (s_ic + log(π_c + 1e-9)) / T_s and the similarity z_ij = q_i·k_j / T of anchor i,

    D_i = Σ_c exp z_ic + γ Σ_{j≠i} exp z_ij
    ℓ_i = (T / T_base) · (log D_i - (β Σ_c t_ic z_ic + α Σ_{j∈P(i)} z_ij) / (β + α |P(i)|))

where j runs over the views of the batch and the queue, P(i) holds those of i's class but i itself, and t_i is the
one-hot target, smoothed in GPaCo: 1 - s on the class, s / (C - 1) elsewhere. PaCo's anchors are the first view, the
other comes from a momentum encoder; GPaCo's anchors are all views, of one encoder. At inference the classifier is
used alone, without the prior.
Source: Cui et al., Parametric Contrastive Learning, ICCV 2021; Cui et al., Generalized Parametric Contrastive
Learning, TPAMI 2023; dvlab-research/Parametric-Contrastive-Learning, PaCo/LT/losses.py and GPaCo/LT/losses.py.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from rebalance.losses._checks import check_counts_fit, check_share, check_targets
from rebalance.losses._counts import PerClass
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction, reduce_losses
from rebalance.losses._repr import told_options
from rebalance.losses.logit_adjustment import logit_adjustments


def paco_log_prior(counts: PerClass) -> Tensor:
    """log(π_c + 1e-9), float64 (C,)."""
    return logit_adjustments(counts, eps=1e-9)


def paco_loss(
    logits: Tensor,
    views: Tensor,
    targets: Tensor,
    keys: Tensor | None = None,
    key_targets: Tensor | None = None,
    *,
    log_prior: Tensor | None = None,
    alpha: float = 0.05,
    beta: float = 1.0,
    gamma: float = 1.0,
    logit_temperature: float = 1.0,
    temperature: float = 0.2,
    base_temperature: float | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """PaCo for logits of the first view, (B, C); GPaCo for logits of all views, (B, V, C).

    Args:
        logits: Classifier logits, from the feature before the projection: they say which views are anchors.
        views: (B, V, D) unit-length embeddings; V = 2 in the papers.
        targets: Class ids, (B,).
        keys: (Q, D) queue as it was before this batch; None or Q = 0 for none.
        key_targets: Class ids of the queue, (Q,).
        log_prior: (C,), see the function `paco_log_prior`; None for balanced data.
        alpha: Weight of a positive pair; 0.05 on the large data sets, 0.01 on CIFAR-100-LT.
        beta: Weight of the class centre.
        gamma: Weight of the pairs in the denominator.
        logit_temperature: T_s, "supt" in the original; it divides the prior too.
        temperature: T; 0.2 on the large data sets, 0.05 on CIFAR-100-LT.
        base_temperature: T_base; None for T, which leaves the loss unscaled.
        label_smoothing: s, of the centre's target alone.
        reduction: "mean", "sum" or "none"; (B,) holds the mean over an image's anchors.

    Raises:
        ValueError: Shapes that do not fit, or a number out of range.
    """
    _check_numbers(alpha, beta, gamma, (temperature, logit_temperature, base_temperature), label_smoothing)
    logits = logits.unsqueeze(1) if logits.ndim == 2 else logits
    _check_shapes(logits, views, targets, keys, key_targets)
    # View-major rows, so that the anchors are the first of them.
    rows = views.transpose(0, 1).flatten(0, 1)  # (V·B, D)
    labels = targets.repeat(views.shape[1])
    if keys is not None and key_targets is not None:
        rows, labels = torch.cat([rows, keys]), torch.cat([labels, key_targets])  # (M, D), (M,)
    with full_precision(logits) as s, full_precision(rows) as k:
        centre = s.transpose(0, 1).flatten(0, 1)  # (A, C)
        if log_prior is not None:
            centre = centre + log_prior.to(centre.dtype)
        losses = _anchor_losses(centre / logit_temperature, k, labels, alpha, beta, gamma, temperature, label_smoothing)
        scale = 1.0 if base_temperature is None else temperature / base_temperature
        return reduce_losses(scale * losses.view(logits.shape[1], len(views)).mean(0), reduction)


def _anchor_losses(
    centre: Tensor,
    rows: Tensor,
    labels: Tensor,
    alpha: float,
    beta: float,
    gamma: float,
    temperature: float,
    label_smoothing: float,
) -> Tensor:
    """ℓ_i without T / T_base, (A,), of the first A of the M rows, from their centre logits (A, C)."""
    n_anchors, n_classes = centre.shape
    anchors, own = rows[:n_anchors], labels[:n_anchors]

    pair = (anchors / temperature) @ rows.T  # (A, M), the one large matrix
    peak = torch.maximum(centre.detach().amax(1), pair.detach().amax(1))
    itself = torch.eye(n_anchors, dtype=torch.bool, device=pair.device)
    pair[:, :n_anchors].masked_fill_(itself, -torch.inf)  # fill_diagonal_ is compiled anew for every size of the queue
    log_gamma = math.log(gamma) if gamma else -math.inf
    log_denominator = torch.logaddexp(centre.logsumexp(1), pair.logsumexp(1) + log_gamma)
    # The original adds 1e-12 to D_i / exp(peak), where the peak counts the masked pair (i, i) too.
    log_denominator = torch.logaddexp(log_denominator, peak + math.log(1e-12))

    # Σ_{j∈P(i)} q_i·k_j = q_i·(S - q_i) with S the sum over i's class: no second (A, M) matrix, and no mask.
    class_sums = rows.new_zeros(n_classes, rows.shape[1]).index_add(0, labels, rows)
    class_sizes = rows.new_zeros(n_classes).index_add(0, labels, torch.ones_like(labels, dtype=rows.dtype))
    positives = (anchors * (class_sums[own] - anchors)).sum(1) / temperature
    n_positives = class_sizes[own] - 1

    hit = centre.gather(1, own[:, None]).squeeze(1)
    if label_smoothing:
        missed = (centre.sum(1) - hit) / (n_classes - 1)
        hit = (1 - label_smoothing) * hit + label_smoothing * missed
    return log_denominator - (beta * hit + alpha * positives) / (beta + alpha * n_positives)


def _check_numbers(
    alpha: float, beta: float, gamma: float, temperatures: tuple[float, float, float | None], label_smoothing: float
) -> None:
    if not (alpha >= 0 and beta >= 0 and gamma >= 0 and alpha + beta > 0):
        raise ValueError(
            f"expected alpha, beta, gamma >= 0, not both alpha and beta 0; got {alpha!r}, {beta!r}, {gamma!r}; "
            "use for example 0.05, 1, 1"
        )
    if not all(value is None or value > 0 for value in temperatures):
        raise ValueError(
            f"expected temperatures > 0; got {', '.join(map(repr, temperatures))}; use for example 0.2, 1, None"
        )
    check_share(label_smoothing, "label_smoothing")


def _check_shapes(
    logits: Tensor, views: Tensor, targets: Tensor, keys: Tensor | None, key_targets: Tensor | None
) -> None:
    fits = views.ndim == logits.ndim == 3 and len(logits) == len(views) and logits.shape[1] in (1, views.shape[1])
    if not fits:
        raise ValueError(
            "expected views (B, V, D) with logits (B, C) of the first view or (B, V, C) of all; "
            f"got views {tuple(views.shape)} and logits {tuple(logits.shape)}; stack the views on dimension 1"
        )
    check_targets(targets, len(views))
    if keys is None and key_targets is None:
        return
    queue_shapes = tuple(None if tensor is None else tuple(tensor.shape) for tensor in (keys, key_targets))
    if keys is None or key_targets is None or keys.shape != (*key_targets.shape, views.shape[2]):
        raise ValueError(
            f"expected keys (Q, {views.shape[2]}) with key_targets (Q,), or neither; "
            f"got {queue_shapes[0]} and {queue_shapes[1]}; pass what the queue held before this batch"
        )


@final
class PaCoLoss(nn.Module):
    """`paco_loss` with the prior of its counts in a buffer.

    Args:
        counts: Training images of each class, (C,); None for balanced data, without a prior.
        alpha: Weight of a positive pair.
        beta: Weight of the class centre.
        gamma: Weight of the pairs in the denominator.
        logit_temperature: T_s.
        temperature: T.
        base_temperature: T_base.
        label_smoothing: s.
    """

    log_prior: Tensor | None

    extra_repr = told_options

    def __init__(
        self,
        counts: PerClass | None,
        *,
        alpha: float = 0.05,
        beta: float = 1.0,
        gamma: float = 1.0,
        logit_temperature: float = 1.0,
        temperature: float = 0.2,
        base_temperature: float | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        _check_numbers(alpha, beta, gamma, (temperature, logit_temperature, base_temperature), label_smoothing)
        self.register_buffer("log_prior", None if counts is None else paco_log_prior(counts), persistent=False)
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.logit_temperature = logit_temperature
        self.temperature = temperature
        self.base_temperature = base_temperature
        self.label_smoothing = label_smoothing

    def forward(
        self,
        logits: Tensor,
        views: Tensor,
        targets: Tensor,
        keys: Tensor | None = None,
        key_targets: Tensor | None = None,
        *,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """Loss of logits (B, C) or (B, V, C), views (B, V, D), class ids (B,) and a queue (Q, D) with its ids (Q,)."""
        if self.log_prior is not None:
            check_counts_fit(logits, self.log_prior, ndims=(2, 3))
        return paco_loss(
            logits,
            views,
            targets,
            keys,
            key_targets,
            log_prior=self.log_prior,
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
            logit_temperature=self.logit_temperature,
            temperature=self.temperature,
            base_temperature=self.base_temperature,
            label_smoothing=self.label_smoothing,
            reduction=reduction,
        )
