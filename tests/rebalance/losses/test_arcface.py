"""ArcFace: against angles, its fallback, its ends, insightface's gradient."""

from __future__ import annotations

import math

import pytest
import torch

from rebalance.losses import ArcFaceLoss, arcface_logits, arcface_loss, cross_entropy_loss

ANGLES = torch.tensor([[0.4, 1.2, 2.0], [1.5, 0.1, 2.9], [2.2, 0.6, 3.0]], dtype=torch.float64)
COSINES = ANGLES.cos()
TARGETS = torch.tensor([0, 2, 1])  # 2.9 lies beyond π - 0.5


def test_the_margin_is_added_to_the_label_s_angle() -> None:
    logits = arcface_logits(COSINES, TARGETS, margin_rad=0.5, scale=10.0)
    expected = 10 * COSINES
    expected[0, 0] = 10 * math.cos(0.4 + 0.5)
    expected[1, 2] = 10 * (math.cos(2.9) - 0.5 * math.sin(0.5))  # cos would rise again beyond π
    expected[2, 1] = 10 * math.cos(0.6 + 0.5)
    torch.testing.assert_close(logits, expected)


def test_the_label_s_logit_falls_all_the_way_from_zero_to_pi() -> None:
    angles = torch.linspace(0, math.pi, 1001, dtype=torch.float64)
    logits = arcface_logits(torch.stack([angles.cos(), angles.cos()], dim=1), torch.zeros(1001, dtype=torch.int64))
    assert (logits[:, 0].diff() < 0).sum() >= 999  # one step up, where the fallback takes over


def test_without_margin_it_is_scaled_cross_entropy() -> None:
    torch.testing.assert_close(
        arcface_loss(COSINES, TARGETS, margin_rad=0.0), cross_entropy_loss(64 * COSINES, TARGETS)
    )


def test_gradient_carries_the_factor_of_the_angle() -> None:
    cosines = COSINES.clone().requires_grad_()
    arcface_logits(cosines, TARGETS, margin_rad=0.5, scale=1.0).sum().backward()
    expected = torch.ones_like(COSINES)
    expected[0, 0] = math.sin(0.9) / math.sin(0.4)
    expected[2, 1] = math.sin(1.1) / math.sin(0.6)
    torch.testing.assert_close(cosines.grad, expected)


def test_straight_through_has_slope_one_and_no_fallback() -> None:
    cosines = COSINES.clone().requires_grad_()
    logits = arcface_logits(cosines, TARGETS, margin_rad=0.5, scale=1.0, straight_through=True)
    logits.sum().backward()
    torch.testing.assert_close(logits.detach()[1, 2], torch.tensor(math.cos(3.4), dtype=torch.float64))
    torch.testing.assert_close(cosines.grad, torch.ones_like(COSINES))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("straight_through", [False, True])
def test_colinear_vectors_have_finite_gradients(dtype: torch.dtype, straight_through: bool) -> None:
    beyond = 1.0 + torch.finfo(dtype).eps  # where rounding puts the product of two unit vectors
    column = torch.tensor([1.0, -1.0, beyond, -beyond, 2 - beyond, beyond - 2], dtype=dtype)
    cosines = torch.stack([column, torch.zeros_like(column)], dim=1).requires_grad_()
    loss = ArcFaceLoss(straight_through=straight_through)(cosines, torch.zeros(6, dtype=torch.int64))
    loss.backward()
    assert loss.isfinite()
    assert cosines.grad is not None
    assert cosines.grad.isfinite().all()


@pytest.mark.parametrize("margin", [28.6, -0.1, float("nan")])
def test_degrees_and_negative_margins_are_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=r"expected margin_rad in \[0, π\]; got .*; convert degrees with math.radians"):
        arcface_loss(COSINES, TARGETS, margin_rad=margin)


def test_margin_and_scale_of_the_module_move_the_loss() -> None:
    base = ArcFaceLoss()(COSINES, TARGETS)
    assert not torch.allclose(ArcFaceLoss(margin_rad=0.3)(COSINES, TARGETS), base)
    assert not torch.allclose(ArcFaceLoss(scale=30.0)(COSINES, TARGETS), base)
