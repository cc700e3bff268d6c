from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rebalance.losses import RegionRebalanceLoss, logit_adjustment_loss, logit_adjustments, region_rebalance_loss
from rebalance.losses._reduction import Reduction

COUNTS = [50, 20, 7, 1]
TARGETS = torch.tensor([0, 3, 1, 2, 3])
PRESENT = torch.tensor([True, False, True, True, False])


def logits_of(seed: int = 0) -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


@pytest.mark.parametrize("s", [0.0, 0.3, 0.5, 1.0])
def test_equals_the_formula_written_as_loops(s: float) -> None:
    total = 0.0
    for z, y in zip(logits_of().tolist(), TARGETS.tolist(), strict=True):
        adjusted = [v + math.log(n / sum(COUNTS) + 1e-12) for v, n in zip(z, COUNTS, strict=True)]
        log_sum = math.log(sum(math.exp(v) for v in adjusted))
        for c, v in enumerate(adjusted):
            total -= (1 - s if c == y else s / 3) * (v - log_sum)
    loss = RegionRebalanceLoss(COUNTS, label_smoothing=s)(logits_of(), TARGETS)
    assert float(loss) == pytest.approx(total / 5, rel=1e-12)


def test_without_smoothing_it_is_logit_adjustment() -> None:
    adjustments = logit_adjustments(COUNTS)
    loss = region_rebalance_loss(logits_of(), TARGETS, adjustments, label_smoothing=0.0)
    torch.testing.assert_close(loss, logit_adjustment_loss(logits_of(), TARGETS, adjustments))


def test_of_one_frequency_it_is_label_smoothing_as_torch_knows_it() -> None:
    loss = RegionRebalanceLoss([3, 3, 3, 3], label_smoothing=0.3)(logits_of(), TARGETS)
    expected = F.cross_entropy(logits_of(), TARGETS, label_smoothing=0.3 * 4 / 3)  # torch spreads over all classes
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("weight", [None, [1.0, 2.0, 0.5, 3.0]])
@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "sum"])
def test_rows_that_are_not_present_are_as_if_left_out(weight: list[float] | None, reduction: Reduction) -> None:
    loss = RegionRebalanceLoss(COUNTS, weight=weight)
    logits, kept = logits_of().requires_grad_(), logits_of()[PRESENT].requires_grad_()
    value, expected = (
        loss(logits, TARGETS, PRESENT, reduction=reduction),
        loss(kept, TARGETS[PRESENT], reduction=reduction),
    )
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[PRESENT], kept.grad)
    assert not logits.grad[~PRESENT].any()


def test_each_row_keeps_its_place_and_those_left_out_are_zero() -> None:
    loss = RegionRebalanceLoss(COUNTS)
    every = loss(logits_of(), TARGETS, reduction="none")
    torch.testing.assert_close(loss(logits_of(), TARGETS, PRESENT, reduction="none"), torch.where(PRESENT, every, 0.0))


def test_what_stands_in_a_row_that_is_left_out_does_not_matter() -> None:
    logits = torch.where(PRESENT[:, None], logits_of(), torch.nan)
    loss = RegionRebalanceLoss(COUNTS)
    torch.testing.assert_close(loss(logits, TARGETS, PRESENT), loss(logits_of(), TARGETS, PRESENT))


@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "sum"])
def test_where_no_row_counts_loss_and_gradient_are_zero(reduction: Reduction) -> None:
    logits = logits_of().requires_grad_()
    loss = RegionRebalanceLoss(COUNTS)(logits, TARGETS, torch.zeros(5, dtype=torch.bool), reduction=reduction)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_class_in_no_image_is_allowed() -> None:
    assert RegionRebalanceLoss([5, 0, 2, 1])(logits_of(), TARGETS).isfinite()


def test_a_mask_that_fits_no_rows_is_refused() -> None:
    loss = RegionRebalanceLoss(COUNTS)
    with pytest.raises(ValueError, match=r"expected present of shape \(5,\), bool; got torch.bool \(3,\); pass one"):
        loss(logits_of(), TARGETS, PRESENT[:3])
    with pytest.raises(ValueError, match=r"expected present of shape \(5,\), bool; got torch.int64 \(5,\); pass one"):
        loss(logits_of(), TARGETS, PRESENT.long())
