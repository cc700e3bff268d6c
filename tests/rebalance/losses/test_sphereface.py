"""SphereFace: ψ against angles, its annealing, its iteration count."""

from __future__ import annotations

import math

import pytest
import torch

from rebalance.losses import (
    SphereFaceLoss,
    cross_entropy_loss,
    sphereface_annealing,
    sphereface_logits,
    sphereface_loss,
)

ANGLES = torch.tensor([[0.4, 1.2, 2.0], [1.5, 0.1, 2.9], [2.2, 0.6, 3.0]], dtype=torch.float64)
COSINES = ANGLES.cos()
NORMS = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)
TARGETS = torch.tensor([0, 2, 1])


def psi(theta: float, m: int) -> float:
    k = min(int(m * theta / math.pi), m - 1)
    return (-1) ** k * math.cos(m * theta) - 2 * k


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("annealing", [0.0, 5.0])
def test_the_margin_multiplies_the_label_s_angle(m: int, annealing: float) -> None:
    expected = COSINES.clone()
    for row, y in enumerate(TARGETS.tolist()):
        margin = psi(float(ANGLES[row, y]), m)
        expected[row, y] = (annealing * float(COSINES[row, y]) + margin) / (1 + annealing)
    logits = sphereface_logits(COSINES, TARGETS, NORMS, margin=m, scale=1.5, annealing=annealing)
    torch.testing.assert_close(logits, 1.5 * NORMS[:, None] * expected)


@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_psi_falls_all_the_way_from_zero_to_pi_without_a_jump(m: int, dtype: torch.dtype) -> None:
    angles = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    cosines = angles.cos().to(dtype)
    logits = sphereface_logits(
        torch.stack([cosines, cosines], dim=1), torch.zeros(2001, dtype=torch.int64), torch.ones(2001), margin=m
    )[:, 0]
    assert logits[0] == 1.0
    assert logits[-1].item() == pytest.approx(1 - 2 * m)
    assert logits.diff().max() < 1e-5
    assert logits.diff().abs().max() < 2 * m * math.pi / 2000


def test_margin_one_is_cross_entropy_of_scaled_cosines() -> None:
    torch.testing.assert_close(
        sphereface_loss(COSINES, TARGETS, NORMS, margin=1), cross_entropy_loss(NORMS[:, None] * COSINES, TARGETS)
    )


def test_colinear_and_zero_features_have_finite_gradients() -> None:
    cosines = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    norms = torch.tensor([1.0, 1.0, 0.0], requires_grad=True)
    loss = sphereface_loss(cosines, torch.zeros(3, dtype=torch.int64), norms)
    loss.backward()
    for grad in (cosines.grad, norms.grad):
        assert grad is not None
        assert grad.isfinite().all()


@pytest.mark.parametrize("m", [2, 3, 4])
def test_psi_rises_with_the_cosine_at_both_ends(m: int) -> None:
    cosines = torch.tensor([[1.0], [-1.0]], dtype=torch.float64, requires_grad=True)
    sphereface_logits(cosines, torch.tensor([0, 0]), torch.ones(2), margin=m).sum().backward()
    torch.testing.assert_close(cosines.grad, torch.full((2, 1), float(m * m), dtype=torch.float64))


def test_annealing_falls_to_its_minimum() -> None:
    assert sphereface_annealing(1).item() == pytest.approx(1000 / 1.12)
    assert sphereface_annealing(100, base=1500.0, gamma=0.1).item() == pytest.approx(1500 / 11)
    assert sphereface_annealing(3, power=2.0).item() == pytest.approx(1000 / 1.36**2)
    assert sphereface_annealing(10**6).item() == 5.0
    assert sphereface_annealing(10**6, minimum=0.5).item() == 0.5


def test_iteration_counts_training_passes_and_is_saved() -> None:
    module = SphereFaceLoss()
    for step in (1, 2, 3):
        expected = sphereface_loss(COSINES, TARGETS, NORMS, annealing=sphereface_annealing(step))
        torch.testing.assert_close(module(COSINES, TARGETS, NORMS), expected)
    resumed = SphereFaceLoss()
    resumed.load_state_dict(module.state_dict())
    assert resumed.iteration.item() == 3
    resumed.eval()(COSINES, TARGETS, NORMS)
    assert resumed.iteration.item() == 3


def test_without_annealing_the_whole_margin_acts() -> None:
    module = SphereFaceLoss(annealed=False)
    torch.testing.assert_close(module(COSINES, TARGETS, NORMS), sphereface_loss(COSINES, TARGETS, NORMS))
    assert module.iteration.item() == 0


@pytest.mark.parametrize("option", ["base", "gamma", "power", "minimum", "margin", "scale"])
def test_each_option_of_the_module_moves_the_loss(option: str) -> None:
    start = {"minimum": 0.0} if option != "minimum" else {"base": 1.0}
    value = {"margin": 2}.get(option, 2.5)
    base = SphereFaceLoss(**start)(COSINES, TARGETS, NORMS)
    assert not torch.allclose(SphereFaceLoss(**{**start, option: value})(COSINES, TARGETS, NORMS), base, rtol=1e-9)


def test_wrong_margins_and_norms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected an integer margin >= 1; got 3\.5"):
        sphereface_loss(COSINES, TARGETS, NORMS, margin=3.5)
    with pytest.raises(ValueError, match="expected an integer margin >= 1; got 0"):
        sphereface_loss(COSINES, TARGETS, NORMS, margin=0)
    with pytest.raises(ValueError, match=r"expected norms of shape \(3,\), .*; got \(3, 1\)"):
        sphereface_loss(COSINES, TARGETS, NORMS[:, None])
