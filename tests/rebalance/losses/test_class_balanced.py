"""Class-balanced losses: the weight, its digits near β = 1, and that it multiplies the plain losses."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from rebalance.losses import (
    ClassBalancedFocalLoss,
    ClassBalancedSigmoidLoss,
    ClassBalancedSoftmaxLoss,
    cross_entropy_loss,
    effective_number_weight,
    focal_sigmoid_loss,
    sigmoid_cross_entropy_loss,
)
from rebalance.weights import class_weights

COUNTS = [5000, 1077, 232, 50, 1]


def exact_weight(beta: Fraction) -> list[float]:
    """Rational arithmetic, from the paper's formula."""
    inverse = [(1 - beta) / (1 - beta**n) for n in COUNTS]
    return [float(len(COUNTS) * value / sum(inverse)) for value in inverse]


@pytest.mark.parametrize("digits", [1, 3, 4, 8, 12])
def test_weight_keeps_its_digits_as_beta_nears_one(digits: int) -> None:
    weight = effective_number_weight(COUNTS, cb_beta=1 - 10.0**-digits)
    # The float 1 - 1e-12 is off by a relative 1e-4 of 1 - β; the weights, which are normalised, do not notice.
    expected = torch.tensor(exact_weight(1 - Fraction(1, 10**digits)), dtype=torch.float64)
    torch.testing.assert_close(weight, expected, rtol=1e-12, atol=0)


def test_weight_is_the_package_s_rule() -> None:
    for beta in (0.0, 0.9, 0.9999, "auto"):
        ours = effective_number_weight(COUNTS, cb_beta=beta)
        torch.testing.assert_close(ours, torch.tensor(class_weights(COUNTS, "effective-number", cb_beta=beta)))


def test_auto_ties_beta_to_the_largest_class() -> None:
    torch.testing.assert_close(
        effective_number_weight(COUNTS, cb_beta="auto"), effective_number_weight(COUNTS, cb_beta=1 - 1 / 5000)
    )


def test_beta_to_one_is_inverse_frequency_and_zero_is_none() -> None:
    inverse = 1 / torch.tensor(COUNTS, dtype=torch.float64)
    near_one = effective_number_weight(COUNTS, cb_beta=1 - 1e-13)
    torch.testing.assert_close(near_one, inverse * 5 / inverse.sum(), rtol=1e-8, atol=0)
    assert effective_number_weight(COUNTS, cb_beta=0.0).tolist() == [1.0] * 5


@pytest.mark.parametrize("beta", [1.0, -0.1, 1.5, float("nan"), "0.9"])
def test_impossible_beta_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match=r"expected cb_beta in \[0, 1\) or 'auto'"):
        effective_number_weight(COUNTS, cb_beta=beta)


def test_losses_are_the_plain_ones_times_the_weight_over_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 4, 4, 2, 1, 3])
    weight = effective_number_weight(COUNTS, cb_beta=0.999)[targets]
    for module, plain in (
        (ClassBalancedSoftmaxLoss(COUNTS, cb_beta=0.999), cross_entropy_loss(logits, targets, reduction="none")),
        (
            ClassBalancedSigmoidLoss(COUNTS, cb_beta=0.999),
            sigmoid_cross_entropy_loss(logits, targets, reduction="none"),
        ),
        (
            ClassBalancedFocalLoss(COUNTS, cb_beta=0.999, gamma=0.5),
            focal_sigmoid_loss(logits, targets, gamma=0.5, reduction="none"),
        ),
    ):
        torch.testing.assert_close(module(logits, targets), (weight * plain).sum() / 6)


def test_default_gamma_and_beta_are_those_of_the_paper_s_script() -> None:
    logits, targets = torch.zeros(1, 5, dtype=torch.float64), torch.tensor([4])
    weight = effective_number_weight(COUNTS, cb_beta=0.9999)
    expected = focal_sigmoid_loss(logits, targets, gamma=1.0, weight=weight)
    torch.testing.assert_close(ClassBalancedFocalLoss(COUNTS)(logits, targets), expected)
