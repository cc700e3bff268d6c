"""Balanced softmax: against its other form, identities, classes without images."""

from __future__ import annotations

import math

import pytest
import torch

from rebalance.losses import (
    BalancedSoftmaxLoss,
    LogitAdjustmentLoss,
    balanced_softmax_loss,
    cross_entropy_loss,
    log_class_prior,
)

COUNTS = [100, 30, 4]
LOGITS = torch.tensor([[0.3, -1.2, 2.0], [1.5, 0.1, -0.7], [0.0, 0.0, 4.0]], dtype=torch.float64)
TARGETS = torch.tensor([0, 2, 1])


def test_is_a_softmax_in_which_every_class_counts_as_often_as_it_has_images() -> None:
    expected = []
    for row, y in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True):
        mass = [n * math.exp(z) for n, z in zip(COUNTS, row, strict=True)]
        expected.append(-math.log(mass[y] / sum(mass)))
    losses = BalancedSoftmaxLoss(COUNTS)(LOGITS, TARGETS, reduction="none")
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))


def test_uniform_prior_is_cross_entropy() -> None:
    torch.testing.assert_close(
        BalancedSoftmaxLoss([7, 7, 7])(LOGITS, TARGETS), cross_entropy_loss(LOGITS, TARGETS), rtol=1e-14, atol=0
    )


def test_only_the_proportions_of_the_counts_matter() -> None:
    torch.testing.assert_close(
        BalancedSoftmaxLoss([0.1, 0.03, 0.004])(LOGITS, TARGETS), BalancedSoftmaxLoss(COUNTS)(LOGITS, TARGETS)
    )


def test_is_logit_adjustment_with_tau_one() -> None:
    torch.testing.assert_close(
        BalancedSoftmaxLoss(COUNTS)(LOGITS, TARGETS), LogitAdjustmentLoss(COUNTS)(LOGITS, TARGETS), rtol=1e-9, atol=0
    )


def test_a_class_without_images_takes_no_part() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = BalancedSoftmaxLoss([100, 0, 4])(logits, torch.tensor([0, 2, 0]))
    loss.backward()
    without = balanced_softmax_loss(LOGITS[:, [0, 2]], torch.tensor([0, 1, 0]), log_class_prior([100, 4]))
    torch.testing.assert_close(loss.detach(), without)
    assert logits.grad is not None
    assert not logits.grad[:, 1].any()


def test_a_target_without_images_is_an_infinite_loss_with_finite_gradients() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = BalancedSoftmaxLoss([100, 0, 4])(logits, TARGETS)
    loss.backward()
    assert loss.item() == math.inf
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_no_image_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an image in at least one class"):
        BalancedSoftmaxLoss([0, 0])
