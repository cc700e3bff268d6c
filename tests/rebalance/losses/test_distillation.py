"""Distillation: against its formula in float64, and what it must do whatever the numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rebalance.losses import DistillationLoss, distillation_loss


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    """Of a student and of its teacher, six images of four classes."""
    stream = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 6, 4, generator=stream, dtype=torch.float64)
    return student, teacher


def reference(student: Tensor, teacher: Tensor, temperature: float, power: float = 1.0) -> np.ndarray:
    def softmax(rows: np.ndarray) -> np.ndarray:
        powers = np.exp(rows - rows.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    p, q = softmax(student.numpy() / temperature), softmax(teacher.numpy() / temperature) ** power
    q = q / q.sum(axis=1, keepdims=True)
    return temperature**2 * np.sum(q * np.log(q / p), axis=1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_it_is_the_formula(logits: tuple[Tensor, Tensor], temperature: float) -> None:
    losses = distillation_loss(*logits, temperature=temperature, reduction="none")
    np.testing.assert_allclose(losses.numpy(), reference(*logits, temperature), rtol=1e-12)
    module = DistillationLoss(temperature=temperature)
    for reduction in ("mean", "weighted_mean", "sum"):
        expected = losses.sum() if reduction == "sum" else losses.mean()
        torch.testing.assert_close(module(*logits, reduction=reduction), expected)


def test_a_power_flattens_what_the_teacher_says(logits: tuple[Tensor, Tensor]) -> None:
    losses = DistillationLoss(temperature=2.0, power=0.5)(*logits, reduction="none")
    np.testing.assert_allclose(losses.numpy(), reference(*logits, 2.0, 0.5), rtol=1e-12)


def test_a_class_that_the_teacher_excludes_counts_nothing() -> None:
    student = torch.tensor([[1.0, 2.0, 0.5]], requires_grad=True)
    loss = distillation_loss(student, torch.tensor([[0.0, 0.0, -torch.inf]]), temperature=1.0)
    loss.backward()
    p = student.detach().softmax(dim=1)
    torch.testing.assert_close(loss.detach(), (0.5 * (torch.log(torch.tensor(0.5)) - p[0, :2].log())).sum())
    torch.testing.assert_close(student.grad, p - torch.tensor([[0.5, 0.5, 0.0]]))


def test_beside_one_hot_probabilities_it_is_cross_entropy() -> None:
    student, targets = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 2, 1, 1, 0])
    certain = 1e4 * torch.nn.functional.one_hot(targets, 3).float()
    found = distillation_loss(student, certain, temperature=1.0)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(student, targets))


def test_it_is_zero_beside_equal_probabilities_and_positive_otherwise(logits: tuple[Tensor, Tensor]) -> None:
    student, teacher = logits
    shifted = student + torch.arange(6.0, dtype=torch.float64)[:, None]  # the same probabilities
    torch.testing.assert_close(distillation_loss(student, shifted), torch.zeros((), dtype=torch.float64))
    assert (distillation_loss(student, teacher, reduction="none") > 0).all()


def test_at_high_temperatures_it_is_half_the_variance_of_the_difference(logits: tuple[Tensor, Tensor]) -> None:
    losses = distillation_loss(*logits, temperature=1e4, reduction="none")
    torch.testing.assert_close(losses, (logits[0] - logits[1]).var(dim=1, unbiased=False) / 2, rtol=1e-3, atol=0)


def test_the_gradient_is_that_of_soft_labels_and_none_reaches_the_teacher(logits: tuple[Tensor, Tensor]) -> None:
    student, teacher = (one.clone().requires_grad_() for one in logits)
    distillation_loss(student, teacher, temperature=2.0, reduction="sum").backward()
    torch.testing.assert_close(student.grad, 2 * ((student / 2).softmax(dim=1) - (teacher / 2).softmax(dim=1)).detach())
    assert teacher.grad is None


def test_half_precision_and_certain_teachers_stay_finite() -> None:
    student = torch.tensor([[90.0, -90.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = distillation_loss(student, torch.tensor([[-3e4, 3e4, 0.0]]), temperature=1.0)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.detach(), torch.tensor(180.0))
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_it_compiles_to_one_graph(logits: tuple[Tensor, Tensor]) -> None:
    module = DistillationLoss()
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="eager")(*logits), module(*logits))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="expected a temperature > 0; got"):
        DistillationLoss(temperature=temperature)
    with pytest.raises(ValueError, match="expected power > 0; got"):
        DistillationLoss(power=temperature)


def test_logits_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape \(B, C\); got \(2, 3\) and \(2, 4\)"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 4))
