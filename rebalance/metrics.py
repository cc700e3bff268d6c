"""How good a classifier is, by class, by many/medium/few, and how far its probabilities can be believed.

Predictions are tallied as they come: what is kept does not grow with the data, and the tallies of several processes
add up. A class without images counts as n/a, never as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from rebalance.counts import GROUPS, FloatArray, Group
from rebalance.errors import InputError, RunError

CALIBRATION_BINS = 15
MAX_CONFUSION_CLASSES = 1000
"""Above this many classes the confusion matrix is not kept."""


@final
class Tally:
    """Counts of predictions, by class.

    Args:
        n_classes: C.
        groups: The group of each class, (C,).
        device: Where to count.

    Raises:
        InputError: Not one group for each class, or one of another name.
    """

    def __init__(self, n_classes: int, groups: Sequence[Group], device: torch.device | None = None) -> None:
        self.n_classes = n_classes
        self.groups = tuple(groups)
        unknown = [group for group in self.groups if group not in GROUPS]
        if unknown or len(self.groups) != n_classes:
            raise InputError(
                f"a group out of {', '.join(GROUPS)} for each of {n_classes} classes",
                repr(unknown[0]) if unknown else f"{len(self.groups)} groups",
                "pass rebalance.shot_groups(counts)",
            )
        self._group_ids = torch.tensor([GROUPS.index(group) for group in groups], device=device)
        self.support = torch.zeros(n_classes, dtype=torch.int64, device=device)
        self.correct = torch.zeros_like(self.support)
        self.predicted = torch.zeros_like(self.support)
        size = n_classes if n_classes <= MAX_CONFUSION_CLASSES else 0
        self.confusion = torch.zeros((size, size), dtype=torch.int64, device=device)
        self.bins = torch.zeros((len(GROUPS), CALIBRATION_BINS, 3), dtype=torch.float64, device=device)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Count predictions: logits (B, C), targets (B,).

        Raises:
            RunError: Logits that are not finite, which no class can be read from.
        """
        confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
        if confidence.isnan().any():
            raise RunError("the classifier's outputs are not finite; lower --lr, or add --clip-grad 1")
        right = predicted == targets
        one = torch.ones_like(targets)
        self.support.index_add_(0, targets, one)
        self.predicted.index_add_(0, predicted, one)
        self.correct.index_add_(0, targets, right.long())
        if self.confusion.numel():
            self.confusion.view(-1).index_add_(0, targets * self.n_classes + predicted, one)
        bin_ids = (confidence * CALIBRATION_BINS).long().clamp_max(CALIBRATION_BINS - 1)
        cells = self._group_ids[targets] * CALIBRATION_BINS + bin_ids
        rows = torch.stack([torch.ones_like(confidence), confidence, right.double()], dim=1)
        self.bins.view(-1, 3).index_add_(0, cells, rows)

    def state(self) -> list[Tensor]:
        """The tensors whose sums over processes are the tally of all."""
        return [self.support, self.correct, self.predicted, self.confusion, self.bins]

    def metrics(self) -> dict[str, Any]:
        """All figures, as plain numbers in [0, 1]; None where there is no image to judge by."""
        support = self.support.double().cpu().numpy()
        correct = self.correct.double().cpu().numpy()
        predicted = self.predicted.double().cpu().numpy()
        recall = _ratio(correct, support)
        seen = support > 0
        f1 = _ratio(2 * correct, support + predicted)
        members = np.array(self.groups)
        bins = self.bins.cpu().numpy()
        return {
            "n_images": int(support.sum()),
            "accuracy": _number(correct.sum() / support.sum()) if seen.any() else None,
            "balanced_accuracy": _mean(recall[seen]),
            "macro_f1": _mean(f1[seen]),
            "g_mean": _geometric_mean(recall[seen]),
            "worst_class": _number(recall[seen].min()) if seen.any() else None,
            "groups": {group: _mean(recall[seen & (members == group)]) for group in GROUPS},
            "ece": expected_calibration_error(bins.sum(axis=0)),
            "ece_groups": {group: expected_calibration_error(bins[i]) for i, group in enumerate(GROUPS)},
            "recall": [_number(value) for value in recall],
            "support": support.astype(int).tolist(),
            "predicted": predicted.astype(int).tolist(),
            "calibration_bins": bins.sum(axis=0).tolist(),
            "confusion": self.confusion.cpu().tolist(),
        }


def headline(metrics: dict[str, Any]) -> dict[str, float | None]:
    """The figures that are compared: one number each."""
    groups = {f"{group}_shot": metrics["groups"][group] for group in GROUPS}
    names = ("balanced_accuracy", "accuracy", "macro_f1", "g_mean", "worst_class", "ece")
    return {**{name: metrics[name] for name in names}, **groups}


def expected_calibration_error(bins: FloatArray) -> float | None:
    """Σ_b n_b / n · |accuracy_b - confidence_b|; None without images.

    Args:
        bins: For each confidence bin the number of images, the sum of confidences and the number right, (B, 3).
    """
    n = bins[:, 0].sum()
    return _number(np.abs(bins[:, 2] - bins[:, 1]).sum() / n) if n else None


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _geometric_mean(values: FloatArray) -> float | None:
    if not values.size:
        return None
    return float(np.exp(np.log(values).mean())) if values.min() > 0 else 0.0


def _mean(values: FloatArray) -> float | None:
    return _number(values.mean()) if values.size else None


def _number(value: Any) -> float | None:
    number = float(value)
    return None if np.isnan(number) else number
