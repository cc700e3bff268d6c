"""The figures of a split as tables on the terminal: the headline, then each class, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.console import log, print_table
from rebalance.counts import GROUPS
from rebalance.errors import listed
from rebalance.metrics import headline

_SHOWN = 20
"""Classes in the table; beyond, the rest is in metrics.json and in the report."""


def print_figures(title: str, metrics: dict[str, Any], classes: Sequence[str]) -> None:
    """Print the figures of one split.

    Args:
        title: Of the first table.
        metrics: Of `rebalance.metrics.Tally`.
        classes: Names, by id.
    """
    print_table(title, ["", "%"], summary_rows(metrics))
    rows = class_rows(metrics, classes)
    if untested := [name for name, n in zip(classes, metrics["support"], strict=True) if not n]:
        names = listed(untested[:5]) + (f" and {len(untested) - 5} more" if len(untested) > 5 else "")
        log.warning("accuracies are over %d of %d classes: no image here of %s", len(rows), len(classes), names)
    more = f", the worst {_SHOWN} of {len(rows)}" if len(rows) > _SHOWN else ""
    print_table(f"classes{more}", ["class", "images", "%", "usually mistaken for"], rows[:_SHOWN])


def summary_rows(metrics: dict[str, Any]) -> list[list[str]]:
    """The headline of a split's metrics as table rows."""
    names = {"ece": "calibration error (ECE)", **{f"{group}_shot": f"{group}-shot accuracy" for group in GROUPS}}
    return [
        [names.get(name, name.replace("_", " ")), "n/a" if value is None else f"{100 * value:.1f}"]
        for name, value in headline(metrics).items()
    ]


def class_rows(metrics: dict[str, Any], classes: Sequence[str]) -> list[list[str]]:
    """Name, images, accuracy and usual mistake of every class that has images, the worst first."""
    confusion = np.array(metrics["confusion"])  # empty for very many classes
    rows = []
    for label in np.argsort([2.0 if value is None else value for value in metrics["recall"]], kind="stable").tolist():
        if not metrics["support"][label]:
            continue
        mistaken = ""
        if confusion.size:
            others = np.where(np.arange(len(classes)) == label, 0, confusion[label])
            mistaken = classes[int(others.argmax())] if others.any() else ""
        figures = [str(metrics["support"][label]), f"{100 * metrics['recall'][label]:.1f}"]
        rows.append([classes[label], *figures, mistaken])
    return rows
