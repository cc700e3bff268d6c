from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from imblearn.metrics import geometric_mean_score
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, recall_score
from torch import Tensor

from rebalance.counts import Group
from rebalance.errors import InputError, RunError
from rebalance.metrics import CALIBRATION_BINS, MAX_CONFUSION_CLASSES, Tally, expected_calibration_error

GROUPS: list[Group] = ["many", "many", "medium", "few", "few"]


def predictions(n: int = 300, seed: int = 0, present: int = 5, skill: float = 3.0) -> tuple[Tensor, Tensor]:
    """Logits and targets of a middling classifier over five classes, of which `present` occur."""
    stream = torch.Generator().manual_seed(seed)
    targets = torch.randint(present, (n,), generator=stream)
    logits = torch.randn(n, 5, generator=stream)
    logits[torch.arange(n), targets] += skill * torch.rand(n, generator=stream)
    return logits, targets


def metrics(logits: Tensor, targets: Tensor, groups: list[Group] = GROUPS) -> dict[str, Any]:
    tally = Tally(len(groups), groups)
    tally.update(logits, targets)
    return tally.metrics()


@pytest.mark.parametrize("present", [5, 4, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_figures_are_those_of_scikit_learn_and_imbalanced_learn(present: int, seed: int) -> None:
    logits, targets = predictions(seed=seed, present=present)
    found, y, p = metrics(logits, targets), targets.numpy(), logits.argmax(1).numpy()
    seen = list(range(present))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of predicted classes that do not occur
        expected = {
            "accuracy": accuracy_score(y, p),
            "balanced_accuracy": balanced_accuracy_score(y, p),
            "macro_f1": f1_score(y, p, average="macro", labels=seen),
            "g_mean": geometric_mean_score(y, p, average="multiclass", labels=seen),
            "worst_class": recall_score(y, p, average=None, labels=seen).min(),
        }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name
    assert found["confusion"] == confusion_matrix(y, p, labels=range(5)).tolist()
    assert found["support"] == np.bincount(y, minlength=5).tolist()
    assert found["predicted"] == np.bincount(p, minlength=5).tolist()
    assert found["recall"][:present] == pytest.approx(recall_score(y, p, average=None, labels=seen), rel=1e-12)
    assert found["recall"][present:] == [None] * (5 - present)
    assert found["n_images"] == 300


def test_groups_are_means_over_their_classes() -> None:
    found = metrics(*predictions())
    recall = found["recall"]
    assert found["groups"]["many"] == pytest.approx((recall[0] + recall[1]) / 2)
    assert found["groups"]["medium"] == pytest.approx(recall[2])
    assert found["groups"]["few"] == pytest.approx((recall[3] + recall[4]) / 2)


def ece_by_loops(logits: Tensor, targets: Tensor) -> float:
    probabilities = torch.softmax(logits.double(), dim=1).tolist()
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(CALIBRATION_BINS)]
    for row, target in zip(probabilities, targets.tolist(), strict=True):
        confidence = max(row)
        number = min(int(confidence * CALIBRATION_BINS), CALIBRATION_BINS - 1)
        bins[number].append((confidence, row.index(confidence) == target))
    total = 0.0
    for cell in bins:
        if cell:
            gap = sum(right for _, right in cell) / len(cell) - sum(confidence for confidence, _ in cell) / len(cell)
            total += len(cell) / len(targets) * abs(gap)
    return total


@pytest.mark.parametrize("skill", [0.5, 3.0, 30.0])
def test_calibration_errors_of_all_and_of_groups_are_those_of_a_plain_loop(skill: float) -> None:
    logits, targets = predictions(skill=skill)
    found = metrics(logits, targets)
    assert found["ece"] == pytest.approx(ece_by_loops(logits, targets), abs=1e-12)
    for group in ("many", "medium", "few"):
        mine = torch.tensor([GROUPS[target] == group for target in targets.tolist()])
        assert found["ece_groups"][group] == pytest.approx(ece_by_loops(logits[mine], targets[mine]), abs=1e-12)
    assert sum(n for n, _, _ in found["calibration_bins"]) == 300


def test_full_confidence_falls_into_the_last_bin() -> None:
    found = metrics(torch.tensor([[1000.0, 0.0, 0.0, 0.0, 0.0]]), torch.tensor([0]))
    assert found["calibration_bins"][-1] == [1.0, 1.0, 1.0]
    assert found["ece"] == 0.0


def test_a_group_without_images_is_not_available_and_not_zero() -> None:
    found = metrics(*predictions(present=2))
    assert found["groups"]["many"] is not None
    assert (found["groups"]["medium"], found["groups"]["few"]) == (None, None)
    assert (found["ece_groups"]["medium"], found["ece_groups"]["few"]) == (None, None)
    assert metrics(torch.eye(2), torch.arange(2), ["few", "few"])["groups"] == {"many": None, "medium": None, "few": 1}


def test_without_an_image_nothing_is_available() -> None:
    found = Tally(5, GROUPS).metrics()
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "g_mean", "worst_class", "ece"):
        assert found[name] is None, name
    assert found["recall"] == [None] * 5
    assert metrics(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)) == found


def test_one_hopeless_class_makes_the_geometric_mean_zero() -> None:
    logits, targets = torch.eye(5)[[0, 1, 2, 3, 0]], torch.arange(5)
    found = metrics(logits, targets)
    assert (found["g_mean"], found["worst_class"], found["balanced_accuracy"]) == (0.0, 0.0, 0.8)


def test_tallies_of_parts_add_up_to_the_tally_of_the_whole() -> None:
    logits, targets = predictions()
    whole, one, other = Tally(5, GROUPS), Tally(5, GROUPS), Tally(5, GROUPS)
    whole.update(logits, targets)
    one.update(logits[:100], targets[:100])
    for part in (slice(100, 101), slice(101, 300)):
        other.update(logits[part], targets[part])
    for total, addend in zip(one.state(), other.state(), strict=True):
        total += addend
    assert one.metrics()["confusion"] == whole.metrics()["confusion"]
    for name, value in whole.metrics().items():
        if isinstance(value, float):
            assert one.metrics()[name] == pytest.approx(value, rel=1e-12), name


def test_above_a_thousand_classes_there_is_no_confusion_matrix_but_all_else() -> None:
    n_classes = MAX_CONFUSION_CLASSES + 500
    groups: list[Group] = ["many"] * 500 + ["medium"] * 500 + ["few"] * 500
    targets = torch.arange(n_classes).repeat(2)
    predicted = torch.where(torch.arange(2 * n_classes) % 5 == 0, (targets + 1) % n_classes, targets)
    found = metrics(torch.nn.functional.one_hot(predicted, n_classes).float() * 9, targets, groups)
    assert found["confusion"] == []
    y, p = targets.numpy(), predicted.numpy()
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, p))
    assert found["macro_f1"] == pytest.approx(f1_score(y, p, average="macro"))
    assert len(metrics(torch.eye(1000), torch.arange(1000), groups[:1000])["confusion"]) == 1000


def test_half_precision_logits_count_as_themselves() -> None:
    logits, targets = predictions()
    rounded = logits.bfloat16()
    assert metrics(rounded, targets) == metrics(rounded.double(), targets)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_stop_the_run(value: float) -> None:
    logits, targets = predictions()
    logits[7, 2] = value
    with pytest.raises(RunError, match="not finite"):
        metrics(logits, targets)


def test_calibration_of_no_bins_is_not_available() -> None:
    assert expected_calibration_error(np.zeros((15, 3))) is None


@pytest.mark.parametrize(
    ("groups", "got"), [(["a", "b", "c"], "got 'a'"), (["many", "few"], "got 2 groups"), ("few", "got 'f'")]
)
def test_groups_that_are_not_one_of_three_for_each_class_are_refused(groups: Any, got: str) -> None:
    with pytest.raises(InputError, match=f"a group out of many, medium, few for each of 3 classes; {got}; pass"):
        Tally(3, groups)
