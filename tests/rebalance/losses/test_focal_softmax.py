"""Focal loss over the softmax: against a loop, its two places of the weight, its safe end."""

from __future__ import annotations

import math

import pytest
import torch

from rebalance.losses import cross_entropy_loss, focal_softmax_loss

LOGITS = torch.tensor([[0.3, -1.2, 2.0], [1.5, 0.1, -0.7], [0.0, 0.0, 4.0]], dtype=torch.float64)
TARGETS = torch.tensor([0, 2, 2])
WEIGHT = torch.tensor([0.5, 1.0, 2.5], dtype=torch.float64)


def cross_entropies() -> list[float]:
    return [
        math.log(sum(math.exp(z) for z in row)) - row[y]
        for row, y in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True)
    ]


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_textbook_form_weighs_outside_the_modulator(gamma: float) -> None:
    expected = [
        float(WEIGHT[y]) * (1 - math.exp(-ce)) ** gamma * ce
        for ce, y in zip(cross_entropies(), TARGETS.tolist(), strict=True)
    ]
    losses = focal_softmax_loss(LOGITS, TARGETS, gamma=gamma, weight=WEIGHT, reduction="none")
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))


def test_ldam_drw_form_weighs_inside_the_modulator() -> None:
    weighted = [float(WEIGHT[y]) * ce for ce, y in zip(cross_entropies(), TARGETS.tolist(), strict=True)]
    expected = [(1 - math.exp(-loss)) ** 2 * loss for loss in weighted]
    losses = focal_softmax_loss(LOGITS, TARGETS, weight=WEIGHT, weight_in_modulator=True, reduction="none")
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))


def test_gamma_zero_is_cross_entropy() -> None:
    for weight in (None, WEIGHT):
        torch.testing.assert_close(
            focal_softmax_loss(LOGITS, TARGETS, gamma=0.0, weight=weight),
            cross_entropy_loss(LOGITS, TARGETS, weight=weight),
        )


def test_detached_modulator_is_a_constant_of_the_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    full = focal_softmax_loss(logits, TARGETS, gamma=1.0)
    detached = focal_softmax_loss(logits, TARGETS, gamma=1.0, detach_modulator=True)
    torch.testing.assert_close(full, detached)
    factors = torch.tensor([1 - math.exp(-ce) for ce in cross_entropies()], dtype=torch.float64)
    expected = torch.autograd.grad((factors * cross_entropy_loss(logits, TARGETS, reduction="none")).mean(), logits)
    torch.testing.assert_close(torch.autograd.grad(detached, logits), expected)
    assert not torch.allclose(torch.autograd.grad(full, logits)[0], expected[0])


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("gap", [10.0, 17.5, 37.0, 1e4])
def test_a_sample_that_is_surely_right_has_a_gradient_near_zero(gamma: float, gap: float) -> None:
    logits = torch.tensor([[gap, 0.0, -2.0]], requires_grad=True)  # float32
    focal_softmax_loss(logits, torch.tensor([0]), gamma=gamma).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().max() < 1e-4


def test_negative_gamma_is_refused() -> None:
    with pytest.raises(ValueError, match="expected gamma >= 0; got -1"):
        focal_softmax_loss(LOGITS, TARGETS, gamma=-1.0)
