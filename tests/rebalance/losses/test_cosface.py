"""CosFace: one margin for all classes."""

from __future__ import annotations

import torch

from rebalance.losses import (
    AMSoftmaxLoss,
    CosFaceLoss,
    LDAMLoss,
    am_softmax_loss,
    cosface_logits,
    cosface_loss,
    cross_entropy_loss,
)

COSINES = torch.tensor([[0.3, -0.2, 0.9], [0.5, 0.1, -0.7], [-1.0, 1.0, 0.4]], dtype=torch.float64)
TARGETS = torch.tensor([0, 2, 1])


def test_the_margin_is_taken_off_the_label_s_cosine() -> None:
    expected = 64 * COSINES
    for row, y in enumerate(TARGETS.tolist()):
        expected[row, y] -= 64 * 0.35
    torch.testing.assert_close(cosface_logits(COSINES, TARGETS), expected)
    torch.testing.assert_close(cosface_loss(COSINES, TARGETS), cross_entropy_loss(expected, TARGETS))


def test_is_ldam_of_equal_counts() -> None:
    ldam = LDAMLoss([5, 5, 5], max_margin=0.35, scale=64.0)
    torch.testing.assert_close(CosFaceLoss()(COSINES, TARGETS), ldam(COSINES, TARGETS))


def test_without_margin_it_is_scaled_cross_entropy() -> None:
    torch.testing.assert_close(
        cosface_loss(COSINES, TARGETS, margin=0.0, scale=7.0), cross_entropy_loss(7 * COSINES, TARGETS)
    )


def test_has_a_second_name() -> None:
    assert am_softmax_loss is cosface_loss
    assert AMSoftmaxLoss is CosFaceLoss
