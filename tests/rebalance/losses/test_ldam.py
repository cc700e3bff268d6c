"""LDAM: margins, the loss against a loop, identities."""

from __future__ import annotations

import math

import pytest
import torch

from rebalance.losses import LDAMLoss, cross_entropy_loss, ldam_loss, ldam_margins

COUNTS = [160, 40, 10]
COSINES = torch.tensor([[0.3, -0.2, 0.9], [0.5, 0.1, -0.7], [-1.0, 1.0, 0.4]], dtype=torch.float64)
TARGETS = torch.tensor([0, 2, 1])


def test_margin_falls_with_the_fourth_root_and_is_largest_for_the_rarest() -> None:
    expected = [0.5 * (10 / n) ** 0.25 for n in COUNTS]
    torch.testing.assert_close(ldam_margins(COUNTS), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(ldam_margins(COUNTS, max_margin=0.3), torch.tensor(expected, dtype=torch.float64) * 0.6)


def test_is_cross_entropy_of_scaled_cosines_with_the_label_s_lowered() -> None:
    margins = ldam_margins(COUNTS)
    expected = []
    for row, y in zip(COSINES.tolist(), TARGETS.tolist(), strict=True):
        z = [10 * (cos - float(margins[y]) * (c == y)) for c, cos in enumerate(row)]
        expected.append(math.log(sum(math.exp(value) for value in z)) - z[y])
    losses = ldam_loss(COSINES, TARGETS, margins, scale=10.0, reduction="none")
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))


def test_without_margin_it_is_scaled_cross_entropy() -> None:
    torch.testing.assert_close(
        ldam_loss(COSINES, TARGETS, torch.zeros(3), scale=30.0), cross_entropy_loss(30 * COSINES, TARGETS)
    )


def test_prescaled_is_the_same_loss_of_logits_that_the_head_has_scaled() -> None:
    logits = (30 * COSINES).requires_grad_()
    cosines = COSINES.clone().requires_grad_()
    prescaled = LDAMLoss(COUNTS, prescaled=True)(logits, TARGETS)
    plain = LDAMLoss(COUNTS)(cosines, TARGETS)
    torch.testing.assert_close(prescaled, plain)
    torch.testing.assert_close(30 * torch.autograd.grad(prescaled, logits)[0], torch.autograd.grad(plain, cosines)[0])


def test_fp16_scores_beyond_its_range_once_scaled_stay_finite() -> None:
    scores = torch.tensor([[2500.0, 0.0, -2500.0]], dtype=torch.float16)  # 30 · 2500 is inf in float16
    loss = LDAMLoss(COUNTS)(scores, torch.tensor([2]))
    assert loss.item() == pytest.approx(30 * (5000 + 0.5))


def test_scale_and_largest_margin_move_the_loss() -> None:
    base = LDAMLoss(COUNTS)(COSINES, TARGETS)
    assert not torch.allclose(LDAMLoss(COUNTS, max_margin=0.2)(COSINES, TARGETS), base)
    assert not torch.allclose(LDAMLoss(COUNTS, scale=10.0)(COSINES, TARGETS), base)
