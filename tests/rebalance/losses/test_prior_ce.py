"""PriorCE is logit adjustment with τ = 1 and ε = 1e-9."""

from __future__ import annotations

import math

import torch

from rebalance.losses import PriorCELoss, cross_entropy_loss

COUNTS = [100, 30, 0]
LOGITS = torch.tensor([[0.3, -1.2, 2.0], [1.5, 0.1, -0.7]], dtype=torch.float64)
TARGETS = torch.tensor([0, 2])


def test_adds_the_log_of_the_prior_and_eps() -> None:
    for eps in (1e-9, 1e-3):
        shift = torch.tensor([math.log(n / 130 + eps) for n in COUNTS], dtype=torch.float64)
        torch.testing.assert_close(
            PriorCELoss(COUNTS, eps=eps)(LOGITS, TARGETS), cross_entropy_loss(LOGITS + shift, TARGETS)
        )
