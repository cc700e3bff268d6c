from __future__ import annotations

import numpy as np
import pytest
import torch

from rebalance.errors import RunError
from rebalance.metrics import Tally
from rebalance.predictions import Predictions

CPU = torch.device("cpu")


def test_batches_in_any_order_give_the_probabilities_of_each_row() -> None:
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)) * 3
    targets = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    expected = logits.double().softmax(dim=1).numpy()
    found = Predictions(7, CPU, top=3)
    for part in ([6, 0, 3], [5], [1, 2, 4]):
        found.update(np.array(part), logits[part], targets[part])
    order = np.argsort(-expected, axis=1)[:, :3]
    np.testing.assert_array_equal(found.classes(), order)
    np.testing.assert_allclose(found.probabilities(), np.take_along_axis(expected, order, axis=1))
    np.testing.assert_allclose(found.of_targets(), expected[np.arange(7), targets])


def test_of_classes_that_are_alike_the_tally_and_the_predictions_take_the_same() -> None:
    logits = torch.zeros(4, 300)
    logits[2:, 150:] = 1
    found, tally = Predictions(4, CPU), Tally(300, ["many"] * 300)
    found.update(np.arange(4), logits)
    tally.update(logits, torch.zeros(4, dtype=torch.int64))
    assert found.classes()[:, 0].tolist() == [0, 0, 150, 150]
    assert tally.predicted.nonzero().flatten().tolist() == [0, 150]


def test_sums_of_parts_are_the_whole() -> None:
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    whole, one, other = (Predictions(6, CPU, top=2) for _ in range(3))
    whole.update(np.arange(6), logits, targets)
    one.update(np.arange(0, 6, 2), logits[::2], targets[::2])
    other.update(np.arange(1, 6, 2), logits[1::2], targets[1::2])
    for expected, first, second in zip(whole.state(), one.state(), other.state(), strict=True):
        torch.testing.assert_close(first + second, expected, rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_outputs_that_are_no_numbers_are_an_error(wrong: float) -> None:
    found = Predictions(2, CPU)
    found.update(np.arange(2), torch.tensor([[0.0, 1.0], [wrong, 0.0]]))
    with pytest.raises(RunError, match="outputs are not finite"):
        found.probabilities()
