"""Focal loss over sigmoids: against a loop, against torchvision, and at the ends where the originals break."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from rebalance.losses import focal_sigmoid_loss, sigmoid_cross_entropy_loss

LOGITS = torch.tensor([[0.3, -1.2, 2.0], [1.5, 0.1, -0.7], [0.0, 0.0, 4.0]], dtype=torch.float64)
TARGETS = torch.tensor([0, 2, 2])
WEIGHT = torch.tensor([0.5, 1.0, 2.5], dtype=torch.float64)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_is_the_sum_of_modulated_binary_cross_entropies(gamma: float) -> None:
    expected = []
    for row, y in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True):
        total = 0.0
        for c, z in enumerate(row):
            p = 1 / (1 + math.exp(-z if c == y else z))  # of the right answer
            total -= (1 - p) ** gamma * math.log(p)
        expected.append(float(WEIGHT[y]) * total)
    losses = focal_sigmoid_loss(LOGITS, TARGETS, gamma=gamma, weight=WEIGHT, reduction="none")
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))


def test_is_torchvision_s_without_alpha() -> None:
    theirs = sigmoid_focal_loss(LOGITS, F.one_hot(TARGETS, 3).double(), alpha=-1, gamma=2, reduction="sum") / 3
    torch.testing.assert_close(focal_sigmoid_loss(LOGITS, TARGETS), theirs)


def test_gamma_zero_is_sigmoid_cross_entropy() -> None:
    torch.testing.assert_close(
        focal_sigmoid_loss(LOGITS, TARGETS, gamma=0.0, weight=WEIGHT),
        sigmoid_cross_entropy_loss(LOGITS, TARGETS, weight=WEIGHT),
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("z", [-100.0, -800.0, -1e4])
def test_the_hardest_positive_keeps_its_loss_and_pulls_with_slope_one(gamma: float, z: float) -> None:
    logits = torch.tensor([[z, -1e4]], requires_grad=True)  # float32: the originals have loss 0 and a NaN gradient
    loss = focal_sigmoid_loss(logits, torch.tensor([0]), gamma=gamma)
    loss.backward()
    assert loss.item() == pytest.approx(-z)
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 0.0]]))


def test_a_positive_that_is_surely_right_has_no_gradient_for_gamma_below_one() -> None:
    logits = torch.tensor([[40.0, -40.0]], requires_grad=True)  # float32: 1 - sigmoid(40) rounds to 0
    focal_sigmoid_loss(logits, torch.tensor([0]), gamma=0.5).backward()
    torch.testing.assert_close(logits.grad, torch.zeros(1, 2))


def test_negative_gamma_is_refused() -> None:
    with pytest.raises(ValueError, match="expected gamma >= 0; got -1"):
        focal_sigmoid_loss(LOGITS, TARGETS, gamma=-1.0)
