"""One-vs-all sigmoid cross entropy: against torch's binary one, and where classifiers should start."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rebalance.losses import sigmoid_bias, sigmoid_cross_entropy_loss

LOGITS = torch.tensor([[0.3, -1.2, 2.0], [1.5, 0.1, -0.7], [0.0, 0.0, 4.0]], dtype=torch.float64)
TARGETS = torch.tensor([0, 2, 2])
WEIGHT = torch.tensor([0.5, 1.0, 2.5], dtype=torch.float64)


def test_is_binary_cross_entropy_summed_over_classes() -> None:
    binary = F.binary_cross_entropy_with_logits(LOGITS, F.one_hot(TARGETS, 3).double(), reduction="none").sum(dim=1)
    losses = sigmoid_cross_entropy_loss(LOGITS, TARGETS, weight=WEIGHT, reduction="none")
    torch.testing.assert_close(losses, WEIGHT[TARGETS] * binary)


def test_is_exact_where_softplus_turns_linear() -> None:
    logits = torch.tensor([[20.5, -20.5]], dtype=torch.float64)
    loss = sigmoid_cross_entropy_loss(logits, torch.tensor([1]))
    exact = 2 * (20.5 + torch.log1p(torch.exp(torch.tensor(-20.5, dtype=torch.float64))))
    torch.testing.assert_close(loss, exact, rtol=1e-15, atol=0)


def test_at_1e4_every_wrong_answer_costs_its_logit() -> None:
    logits = torch.tensor([[1e4, -1e4, -1e4], [-1e4, 1e4, 0.0]])
    losses = sigmoid_cross_entropy_loss(logits, torch.tensor([0, 0]), reduction="none")
    torch.testing.assert_close(losses, torch.tensor([0.0, 2e4 + 0.6931472]))


@pytest.mark.parametrize("n_classes", [2, 10, 1000])
def test_bias_starts_every_probability_at_one_in_c(n_classes: int) -> None:
    assert torch.tensor(sigmoid_bias(n_classes)).sigmoid().item() == pytest.approx(1 / n_classes, rel=1e-5)


def test_bias_of_a_single_class_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 2 classes; got 1"):
        sigmoid_bias(1)
