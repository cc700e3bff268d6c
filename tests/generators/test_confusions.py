from __future__ import annotations

import torch

from generators.confusions import third_class, usual_confusions

COUNTS = torch.tensor([1000, 100, 10, 10])


def logits(probabilities: list[list[float]]) -> torch.Tensor:
    return torch.tensor(probabilities).log()


def test_usual_confusion_is_the_largest_share_of_another_class() -> None:
    shares = torch.tensor([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.9, 0.04, 0.06]])
    assert usual_confusions(shares).tolist() == [1, 2, 0]


def test_a_class_that_both_readings_name_is_found_but_not_target_or_confusion() -> None:
    sure_of = logits([[0.001, 0.0001, 0.0001, 0.9988], [0.001, 0.0001, 0.9988, 0.0001], [0.0, 0.9999, 0.0001, 0.0]])
    found = third_class(sure_of, label=2, usual=1, counts=COUNTS)
    assert found[0] > 0.99
    assert found[1:].tolist() == [0.0, 0.0]


def test_a_head_class_named_by_its_frequency_alone_is_no_third_class() -> None:
    """0.95 for a class 100 times as frequent as the target is less than even odds once that is taken out."""
    biased = logits([[0.95, 0.0, 0.05, 0.0]])
    assert third_class(biased, label=2, usual=1, counts=COUNTS).tolist() == [0.0]
    assert third_class(biased, label=2, usual=1, counts=torch.full((4,), 10)).tolist()[0] > 0.9


def test_a_rare_class_named_only_after_the_adjustment_is_no_third_class() -> None:
    weak = logits([[0.6, 0.0, 0.0, 0.4]])
    assert third_class(weak, label=1, usual=2, counts=COUNTS).tolist() == [0.0]
