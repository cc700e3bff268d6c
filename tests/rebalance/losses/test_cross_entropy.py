"""Softmax cross entropy: against a loop, against torch, and its two weighted means."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from rebalance.losses import CrossEntropyLoss, cross_entropy_loss

LOGITS = torch.tensor([[0.3, -1.2, 2.0], [1.5, 0.1, -0.7], [0.0, 0.0, 4.0], [-3.0, 1.0, 0.5]], dtype=torch.float64)
TARGETS = torch.tensor([0, 2, 2, 1])
WEIGHT = torch.tensor([0.5, 1.0, 2.5], dtype=torch.float64)


def test_is_the_weighted_negative_log_likelihood() -> None:
    expected = []
    for row, y in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True):
        p = math.exp(row[y]) / sum(math.exp(z) for z in row)
        expected.append(-float(WEIGHT[y]) * math.log(p))
    losses = cross_entropy_loss(LOGITS, TARGETS, weight=WEIGHT, reduction="none")
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))


def test_weighted_mean_is_torch_s_and_mean_divides_by_the_batch() -> None:
    torch.testing.assert_close(
        cross_entropy_loss(LOGITS, TARGETS, weight=WEIGHT, reduction="weighted_mean"),
        F.cross_entropy(LOGITS, TARGETS, weight=WEIGHT),
    )
    torch.testing.assert_close(
        cross_entropy_loss(LOGITS, TARGETS, weight=WEIGHT),
        F.cross_entropy(LOGITS, TARGETS, weight=WEIGHT, reduction="sum") / len(TARGETS),
    )


def test_accumulated_means_of_halves_are_the_mean_of_the_whole() -> None:
    whole = cross_entropy_loss(LOGITS, TARGETS, weight=WEIGHT)
    halves = [cross_entropy_loss(LOGITS[i : i + 2], TARGETS[i : i + 2], weight=WEIGHT) for i in (0, 2)]
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_float32_weights_suit_logits_of_any_dtype() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        loss = cross_entropy_loss(LOGITS.to(dtype), TARGETS, weight=WEIGHT.float())
        assert loss.item() == pytest.approx(cross_entropy_loss(LOGITS, TARGETS, weight=WEIGHT).item(), rel=2e-2)


def test_weights_that_are_all_zero_in_a_batch_give_zero_not_nan() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = cross_entropy_loss(logits, TARGETS, weight=torch.zeros(3), reduction="weighted_mean")
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_masked_column_takes_no_part() -> None:
    masked = torch.cat([LOGITS, torch.full((4, 1), -torch.inf, dtype=torch.float64)], dim=1).requires_grad_()
    loss = cross_entropy_loss(masked, TARGETS)
    loss.backward()
    torch.testing.assert_close(loss.detach(), cross_entropy_loss(LOGITS, TARGETS))
    assert masked.grad is not None
    assert masked.grad.isfinite().all()
    assert not masked.grad[:, 3].any()


def test_module_moves_its_weight_with_it() -> None:
    module = CrossEntropyLoss([0.5, 1.0, 2.5])
    torch.testing.assert_close(module(LOGITS, TARGETS), cross_entropy_loss(LOGITS, TARGETS, weight=WEIGHT))
    module.to("meta")
    assert module.weight is not None
    assert module.weight.device.type == "meta"
