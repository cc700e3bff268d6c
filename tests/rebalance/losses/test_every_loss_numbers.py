"""Half precision, extreme scores and small batches, on every classification, angular and contrastive loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rebalance import losses

COUNTS = [500, 120, 30, 8, 1]
C = len(COUNTS)
LossCase = Any
"""See the fixtures of losses: `name`, `make` and `takes_weight`."""
Batch = Callable[..., tuple[Tensor, Tensor]]
Gradient = Callable[..., tuple[Tensor, Tensor]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_computed_in_float32(
    batch: Batch, gradient: Gradient, logit_loss: LossCase, dtype: torch.dtype
) -> None:
    scores, targets = batch(dtype=dtype)
    module = logit_loss.make(COUNTS)
    loss, grad = gradient(module, scores, targets)
    exact, exact_grad = gradient(module, scores.double(), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(grad, exact_grad.to(dtype), rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_views_are_computed_in_float32(
    unit_views: Batch, gradient: Gradient, view_loss: LossCase, dtype: torch.dtype
) -> None:
    views, targets = unit_views(dtype=dtype)
    module = view_loss.make()
    loss, grad = gradient(module, views, targets)
    exact, exact_grad = gradient(module, views.double(), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(grad, exact_grad.to(dtype), rtol=2e-2, atol=1e-2)


def check_autocast(module: nn.Module, scores: Tensor, targets: Tensor, gradient: Gradient) -> None:
    loss, grad = gradient(module, scores, targets)
    inputs = scores.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast_loss = module(inputs, targets)
    (cast_grad,) = torch.autograd.grad(cast_loss, inputs)  # as torch advises: backward is outside
    assert cast_loss.dtype == torch.float32
    assert torch.equal(cast_loss, loss)
    assert torch.equal(cast_grad, grad)


def test_autocast_changes_nothing(batch: Batch, gradient: Gradient, logit_loss: LossCase) -> None:
    scores, targets = batch(dtype=torch.float32)
    check_autocast(logit_loss.make(COUNTS), scores, targets, gradient)


def test_autocast_changes_nothing_of_views(unit_views: Batch, gradient: Gradient, view_loss: LossCase) -> None:
    views, targets = unit_views(dtype=torch.float32)
    check_autocast(view_loss.make(), views, targets, gradient)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_saturated_logits_give_finite_loss_and_gradient(
    gradient: Gradient, logit_loss: LossCase, dtype: torch.dtype
) -> None:
    rows = [[1e4, -1e4, 0.0, 1e4, -1e4], [-1e4, 1e4, 1e4, 0.0, 1.0], [-1e4] * C, [1e4] * C]
    rows = [row for row in rows for _ in range(C)]
    targets = torch.arange(C).repeat(4)
    scores = torch.tensor(rows, dtype=dtype)
    if "Face" in logit_loss.name:  # takes cosines
        scores = scores.clamp(-1.0, 1.0)
    loss, grad = gradient(logit_loss.make(COUNTS), scores, targets)
    assert loss.isfinite()
    assert grad.isfinite().all()
    for gamma in (0.0, 0.5, 1.0) if "Focal" in logit_loss.name else ():
        loss, grad = gradient(logit_loss.make(COUNTS, gamma=gamma), scores, targets)
        assert loss.isfinite()
        assert grad.isfinite().all()


def test_small_batches_and_few_classes(batch: Batch, gradient: Gradient, logit_loss: LossCase) -> None:
    scores, targets = batch()
    module = logit_loss.make(COUNTS)
    one, one_grad = gradient(module, scores[3:4], targets[3:4])
    torch.testing.assert_close(one, module(scores, targets, reduction="none")[3])
    assert one_grad.isfinite().all()
    same_class, grad = gradient(module, scores, torch.full_like(targets, 4))
    assert same_class.isfinite()
    assert grad.isfinite().all()
    single, grad = gradient(logit_loss.make([9]), scores[:, :1], torch.zeros_like(targets))
    assert single.isfinite()
    assert grad.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 1)])
def test_small_batches_of_views(gradient: Gradient, view_loss: LossCase, shape: tuple[int, int]) -> None:
    for targets in (torch.arange(shape[0]), torch.zeros(shape[0], dtype=torch.int64)):
        loss, grad = gradient(view_loss.make(), torch.ones(*shape, 4) / 2, targets)
        assert loss.isfinite()
        assert grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_views_give_finite_loss_and_gradient(
    unit_views: Batch, gradient: Gradient, view_loss: LossCase, dtype: torch.dtype
) -> None:
    views, targets = unit_views(dtype=dtype)
    for extreme in (torch.zeros_like(views), views[:1, :1].expand_as(views), views * 100):
        loss, grad = gradient(view_loss.make(), extreme, targets)
        assert loss.isfinite()
        assert grad.isfinite().all()


def test_a_huge_class_survives_half_precision(batch: Batch, gradient: Gradient, logit_loss: LossCase) -> None:
    counts = [1_281_167, 70_000, 65_505, 2, 1]
    scores, targets = batch(dtype=torch.float16)
    loss, grad = gradient(logit_loss.make(counts), scores, targets)
    exact, _ = gradient(logit_loss.make(counts), scores.double(), targets)
    torch.testing.assert_close(loss.double(), exact, rtol=2e-5, atol=1e-5)
    assert grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("sigmoid_cross_entropy_loss", {}, math.log1p(math.exp(-1)) + math.log1p(math.exp(2))),
        ("focal_sigmoid_loss", {"gamma": 0.0}, math.log1p(math.exp(-1)) + math.log1p(math.exp(2))),
        ("label_aware_smoothing_loss", {"smoothing": torch.zeros(3)}, math.log1p(math.exp(1))),
        ("cross_entropy_loss", {}, math.log1p(math.exp(1))),
    ],
)
def test_a_class_that_is_masked_by_a_logit_of_minus_infinity_costs_nothing(
    name: str, options: dict[str, Any], expected: float
) -> None:
    logits = torch.tensor([[1.0, 2.0, -math.inf]], requires_grad=True)
    loss = getattr(losses, name)(logits, torch.tensor([0]), **options)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert float(logits.grad[0, 2]) == 0
