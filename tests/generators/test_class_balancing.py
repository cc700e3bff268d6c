from __future__ import annotations

import pytest
import torch

from generators.class_balancing import class_balancing_loss


def predictions(seed: int) -> torch.Tensor:
    return torch.randn((3, 2, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_formula() -> None:
    one, other, times = predictions(0), predictions(1), torch.tensor([0.0, 0.25, 0.9], dtype=torch.float64)
    found = class_balancing_loss(one, other, times, tau=2.0, commitment=0.5)
    for i in range(3):
        distance = sum(float(a - b) ** 2 for a, b in zip(one[i].flatten(), other[i].flatten(), strict=True)) / 32
        assert float(found[i]) == pytest.approx(2.0 * float(times[i]) * 1.5 * distance, rel=1e-12)


def test_nothing_is_asked_where_classes_agree_or_nothing_is_noised() -> None:
    one = predictions(0)
    assert not class_balancing_loss(one, one.clone(), torch.ones(3)).any()
    assert not class_balancing_loss(one, predictions(1), torch.zeros(3)).any()


def test_the_drawn_classes_are_pulled_a_quarter_as_much() -> None:
    one, other = predictions(0).requires_grad_(), predictions(1).requires_grad_()
    class_balancing_loss(one, other, torch.full((3,), 0.5)).sum().backward()
    assert one.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(one.grad, (one - other).detach() * 2 * 0.5 / 32)
    torch.testing.assert_close(other.grad, -one.grad / 4)
