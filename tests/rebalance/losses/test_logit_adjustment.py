"""Logit adjustment: in training, after it, and that the two undo each other."""

from __future__ import annotations

import math

import pytest
import torch

from rebalance.losses import LogitAdjustmentLoss, adjust_logits, cross_entropy_loss, logit_adjustments

COUNTS = [100, 30, 4]
LOGITS = torch.tensor([[0.3, -1.2, 2.0], [1.5, 0.1, -0.7], [0.0, 0.0, 4.0]], dtype=torch.float64)
TARGETS = torch.tensor([0, 2, 1])


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_adds_tau_times_the_log_prior(tau: float) -> None:
    shift = torch.tensor([tau * math.log(n / 134) for n in COUNTS], dtype=torch.float64)
    torch.testing.assert_close(logit_adjustments(COUNTS, tau=tau), shift, rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(
        LogitAdjustmentLoss(COUNTS, tau=tau)(LOGITS, TARGETS),
        cross_entropy_loss(LOGITS + shift, TARGETS),
        rtol=1e-8,
        atol=0,
    )


def test_shares_do_as_well_as_counts() -> None:
    torch.testing.assert_close(logit_adjustments([n / 134 for n in COUNTS]), logit_adjustments(COUNTS))


def test_tau_zero_and_uniform_counts_are_cross_entropy() -> None:
    plain = cross_entropy_loss(LOGITS, TARGETS)
    torch.testing.assert_close(LogitAdjustmentLoss(COUNTS, tau=0.0)(LOGITS, TARGETS), plain)
    torch.testing.assert_close(LogitAdjustmentLoss([5, 5, 5])(LOGITS, TARGETS), plain)


def test_saturates_at_log_eps() -> None:
    assert logit_adjustments([10**6, 1], tau=3.0)[1].item() == pytest.approx(math.log(1e-12 + 1e-18))
    assert logit_adjustments([10, 0])[1].item() == pytest.approx(math.log(1e-12))


def test_post_hoc_takes_off_what_training_adds() -> None:
    trained = LOGITS + logit_adjustments(COUNTS, tau=1.5)
    torch.testing.assert_close(adjust_logits(trained, COUNTS, tau=1.5), LOGITS)


def test_post_hoc_never_predicts_a_class_without_images() -> None:
    adjusted = adjust_logits(torch.zeros(2, 3), [10, 0, 5])
    assert adjusted[:, 1].tolist() == [-math.inf] * 2
    assert adjusted.argmax(dim=1).tolist() == [2, 2]


def test_post_hoc_with_tau_zero_changes_nothing() -> None:
    torch.testing.assert_close(adjust_logits(LOGITS, [10, 0, 5], tau=0.0), LOGITS)


def test_post_hoc_computes_half_precision_in_float32_and_any_leading_shape() -> None:
    assert adjust_logits(torch.zeros(2, 4, 3, dtype=torch.bfloat16), COUNTS).dtype == torch.float32
    with pytest.raises(ValueError, match=r"expected logits with a last dimension of 3, .*; got \(2, 4\)"):
        adjust_logits(torch.zeros(2, 4), COUNTS)
