"""Distillation: learn a teacher's probabilities beside the labels, softened so that small ones count.

    ℓ_i = τ² KL(q_i ‖ p_i) = τ² Σ_c q_ic (log q_ic - log p_ic)
    q_i ∝ softmax(teacher_i / τ)^ρ,  p_i = softmax(z_i / τ)

τ² keeps the size of the gradient as τ grows. ρ < 1 flattens what the teacher says, and with it the classes that the
student learns of. Source: Hinton et al., Distilling the Knowledge in a Neural Network, NeurIPS Workshop 2014, section 2
(ρ = 1); He et al., Distilling Virtual Examples for Long-Tailed Recognition, ICCV 2021 (DiVE); zhangyongshun/
BagofTricks-LT, DiVEKLD, whose configs for CIFAR-LT have τ = 2 and ρ = 0.5.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from rebalance.losses._checks import check_temperature
from rebalance.losses._precision import full_precision
from rebalance.losses._reduction import Reduction, reduce_losses
from rebalance.losses._repr import told_options


def distillation_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 2.0,
    power: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Divergence of a classifier from its teacher; no gradient reaches the teacher.

    A class that the teacher excludes with a logit of -inf counts 0.

    Args:
        logits: (B, C).
        teacher_logits: (B, C), of the same images.
        temperature: τ > 0. Beyond about 100, float32 rounds the difference of the probabilities away.
        power: ρ > 0.
        reduction: "mean", "weighted_mean" (the same here), "sum" or "none".

    Raises:
        ValueError: Different shapes, or a temperature or power that is not positive and finite.
    """
    check_temperature(temperature)
    check_temperature(power, "power")
    if logits.ndim != 2 or logits.shape != teacher_logits.shape:
        raise ValueError(
            "expected logits and teacher_logits of one shape (B, C); "
            f"got {tuple(logits.shape)} and {tuple(teacher_logits.shape)}; give both for the same images and classes"
        )
    with full_precision(logits) as z:
        log_p = torch.log_softmax(z / temperature, dim=1)
        log_q = torch.log_softmax(teacher_logits.detach().to(z.dtype) * (power / temperature), dim=1)
        q = log_q.exp()
        divergence = torch.where(q > 0, q * (log_q - log_p), torch.zeros_like(q))
        return reduce_losses(temperature**2 * divergence.sum(dim=1), reduction)


@final
class DistillationLoss(nn.Module):
    """`distillation_loss` with its options.

    Args:
        temperature: τ > 0.
        power: ρ > 0.
    """

    extra_repr = told_options

    def __init__(self, *, temperature: float = 2.0, power: float = 1.0) -> None:
        super().__init__()
        check_temperature(temperature)
        check_temperature(power, "power")
        self.temperature = temperature
        self.power = power

    def forward(self, logits: Tensor, teacher_logits: Tensor, *, reduction: Reduction = "mean") -> Tensor:
        """Loss of logits (B, C) beside those of the teacher (B, C)."""
        return distillation_loss(
            logits, teacher_logits, temperature=self.temperature, power=self.power, reduction=reduction
        )
