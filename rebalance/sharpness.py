"""Sharpness-aware minimisation (SAM): step by the gradient at the worst point of a small ball around the weights.

    g = ∇L(w)
    ε = ρ g / ‖g‖, the norm over all parameters together
    w ← w - η ∇L(w + ε)

Paper: Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021, eq. 2 and
algorithm 1. Original: https://github.com/google-research/sam, sam_jax/training_utils/flax_training.py. On long tails:
Rangwani et al., Escaping Saddle Points for Effective Generalization on Class-Imbalanced Data, NeurIPS 2022,
https://github.com/val-iisc/Saddle-LongTail, cifar_train_sam.py. As in the original, and unlike the PyTorch code that
the latter uses, batch-norm statistics are those at w. With several ranks ε comes from the gradient of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn

from rebalance.bookmark import bookmark
from rebalance.methods.base import Method

T = TypeVar("T")
_SMALLEST_NORM = 1e-30
"""Below it ε goes to 0 with the gradient, instead of keeping its length."""


def sharpness_aware(method: Method, accumulate: Callable[[], T], *, rho: float) -> T:
    """Leave the gradients ∇L(w + ε), where `accumulate` alone would leave ∇L(w).

    Weights come back to the last bit. Frozen parameters, and those without a gradient, are no part of ε. What
    `forward` changes beside gradients is what the first pass, at w, made of it.

    Args:
        method: Without gradients.
        accumulate: Forward and backward over the batch; adds to the gradients, with the same random numbers each time.
        rho: ρ > 0, the length of ε.

    Returns:
        What the first pass returned.
    """
    before = method.bookmark()
    result = accumulate()
    after = method.bookmark()
    for parameter in method.frozen_parameters():
        parameter.grad = None
    moved = [parameter for parameter in method.parameters() if parameter.grad is not None]
    weights = bookmark(moved)
    try:
        perturb(moved, rho)
        method.zero_grad(set_to_none=True)
        before()
        accumulate()
    finally:
        weights()
        after()
    return result


@torch.no_grad()
def perturb(parameters: Iterable[nn.Parameter], rho: float) -> None:
    """Add ε to the weights; all stay where they are if the gradient is zero or not finite.

    A factor of all gradients, such as that of a loss scaler, changes nothing.
    """
    pairs = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    if not pairs:
        return
    weights, gradients = zip(*pairs, strict=True)
    norm = nn.utils.get_total_norm(gradients)
    steps = torch._foreach_mul(gradients, rho / norm.clamp_min(_SMALLEST_NORM))
    for step in steps:
        step.nan_to_num_(nan=0.0)  # by an infinite norm all are 0 or nan, by one that is nan all are nan
    torch._foreach_add_(weights, steps)
