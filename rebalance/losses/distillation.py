"""Distillation: learn a teacher's probabilities beside the labels, softened so that small ones count.

    ℓ_i = τ² KL(q_i ‖ p_i) = τ² Σ_c q_ic (log q_ic - log p_ic)
    q_i = softmax(teacher_i / τ),  p_i = softmax(z_i / τ)

τ² keeps the size of the gradient as τ grows; for τ → ∞, ℓ is half the variance over classes of z_i - teacher_i.
Source: Hinton et al., Distilling the Knowledge in a Neural Network, NeurIPS Workshop 2014, section 2; for long tails
He et al., Distilling Virtual Examples for Long-Tailed Recognition, ICCV 2021 (DiVE), eq. 3. DiVE may raise q to a power
too, which is dividing the teacher's logits once more: left out.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction, reduce_losses


def distillation_loss(
    logits: Tensor, teacher_logits: Tensor, *, temperature: float = 3.0, reduction: Reduction = "mean"
) -> Tensor:
    """Divergence of a classifier from its teacher; no gradient reaches the teacher.

    Args:
        logits: (B, C).
        teacher_logits: (B, C), of the same images.
        temperature: τ > 0; DiVE: 3 on CIFAR-LT.
        reduction: "mean", "weighted_mean" (the same here), "sum" or "none".

    Raises:
        ValueError: Different shapes, or a temperature that is not positive.
    """
    check_temperature(temperature)
    if logits.ndim != 2 or logits.shape != teacher_logits.shape:
        raise ValueError(
            "expected logits and teacher_logits of one shape (B, C); "
            f"got {tuple(logits.shape)} and {tuple(teacher_logits.shape)}; give both for the same images and classes"
        )
    with full_precision(logits) as z:
        log_p = torch.log_softmax(z / temperature, dim=1)
        log_q = torch.log_softmax(teacher_logits.detach().to(z.dtype) / temperature, dim=1)
        losses = temperature**2 * (log_q.exp() * (log_q - log_p)).sum(dim=1)
        return reduce_losses(losses, reduction)


@final
class DistillationLoss(nn.Module):
    """`distillation_loss` with its option.

    Args:
        temperature: τ > 0.
    """

    def __init__(self, *, temperature: float = 3.0) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def forward(self, logits: Tensor, teacher_logits: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of logits (B, C) beside those of the teacher (B, C)."""
        return distillation_loss(logits, teacher_logits, temperature=self.temperature, reduction=reduction)


def check_temperature(temperature: float) -> None:
    """Refuses a divisor of logits that is not positive."""
    if not temperature > 0:
        raise ValueError(f"expected temperature > 0; got {temperature!r}; 3 is usual")
