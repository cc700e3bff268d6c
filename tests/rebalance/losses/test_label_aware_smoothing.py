"""Label-aware smoothing: its shapes, the loss against a loop, identities, equal counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rebalance.losses import (
    LabelAwareSmoothingLoss,
    cross_entropy_loss,
    label_aware_smoothing_loss,
    label_smoothing_by_class,
)

COUNTS = [110, 60, 10]
LOGITS = torch.tensor([[0.3, -1.2, 2.0], [1.5, 0.1, -0.7], [0.0, 0.0, 4.0]], dtype=torch.float64)
TARGETS = torch.tensor([0, 2, 1])


@pytest.mark.parametrize(
    ("options", "f"),
    [
        ({}, lambda r: math.sin(math.pi * r / 2)),
        ({"shape": "linear"}, lambda r: r),
        ({"shape": "convex"}, lambda r: 1 - math.cos(math.pi * r / 2)),
        ({"shape": "exp", "power": 0.7}, lambda r: r**0.7),
    ],
)
def test_smoothing_falls_from_head_to_tail_along_its_shape(
    options: dict[str, Any], f: Callable[[float], float]
) -> None:
    expected = torch.tensor([0.1 + 0.3 * f((n - 10) / 100) for n in COUNTS], dtype=torch.float64)
    torch.testing.assert_close(label_smoothing_by_class(COUNTS, **options), expected)


@pytest.mark.parametrize("to_others_only", [False, True])
def test_loss_mixes_the_label_with_all_classes_or_all_others(to_others_only: bool) -> None:
    smoothing = label_smoothing_by_class(COUNTS)
    expected = []
    for row, y in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True):
        e, total = float(smoothing[y]), sum(math.exp(z) for z in row)
        goal = [e / 3 + (1 - e) * (c == y) for c in range(3)]
        if to_others_only:
            goal = [1 - e if c == y else e / 2 for c in range(3)]
        expected.append(-sum(g * math.log(math.exp(z) / total) for g, z in zip(goal, row, strict=True)))
    losses = LabelAwareSmoothingLoss(COUNTS, to_others_only=to_others_only)(LOGITS, TARGETS, reduction="none")
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))


def test_one_smoothing_for_all_classes_is_torch_s_label_smoothing() -> None:
    torch.testing.assert_close(
        label_aware_smoothing_loss(LOGITS, TARGETS, torch.full((3,), 0.2)),
        F.cross_entropy(LOGITS, TARGETS, label_smoothing=0.2),
        rtol=1e-6,
        atol=0,
    )


def test_no_smoothing_is_cross_entropy() -> None:
    module = LabelAwareSmoothingLoss(COUNTS, smooth_head=0.0, smooth_tail=0.0)
    torch.testing.assert_close(module(LOGITS, TARGETS), cross_entropy_loss(LOGITS, TARGETS))


@pytest.mark.parametrize("shape", ["concave", "linear", "convex"])
def test_classes_of_one_size_are_all_smoothed_as_the_head(shape: str) -> None:
    smoothing = label_smoothing_by_class([20, 20], smooth_head=0.3, smooth_tail=0.0, shape=shape)
    torch.testing.assert_close(smoothing, torch.tensor([0.3, 0.3], dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "round"}, "expected a shape out of concave, linear, convex, exp; got 'round'"),
        ({"shape": "exp"}, "expected a power with shape 'exp'"),
        ({"shape": "linear", "power": 2.0}, "expected a power with shape 'exp'"),
        ({"shape": "exp", "power": 0.0}, "expected power > 0; got 0.0"),
        ({"smooth_head": 1.5}, r"expected smooth_head in \[0, 1\]; got 1.5"),
        ({"smooth_tail": -0.1}, r"expected smooth_tail in \[0, 1\]; got -0.1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_smoothing_by_class(COUNTS, **options)
