from __future__ import annotations

import logging
from typing import Any

import pytest

from pipelines.console import log
from pipelines.figure_tables import class_rows, print_figures

CLASSES = ("ape", "bee", "cat", "dog")
METRICS: dict[str, Any] = {
    "recall": [0.5, 1.0, None, 0.25],
    "support": [4, 2, 0, 4],
    "confusion": [[2, 0, 2, 0], [0, 2, 0, 0], [0, 0, 0, 0], [1, 2, 0, 1]],
}


def test_the_worst_class_comes_first_with_its_usual_mistake() -> None:
    assert class_rows(METRICS, CLASSES) == [
        ["dog", "4", "25.0", "bee"],
        ["ape", "4", "50.0", "cat"],
        ["bee", "2", "100.0", ""],
    ]


def test_without_a_confusion_matrix_there_are_no_mistakes_to_show() -> None:
    assert [row[3] for row in class_rows({**METRICS, "confusion": []}, CLASSES)] == ["", "", ""]


def test_many_classes_are_cut_to_the_worst(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "handlers", [logging.NullHandler()])
    monkeypatch.setattr(log, "level", logging.INFO)
    n = 30
    metrics: dict[str, Any] = {
        "recall": [i / n for i in range(n)],
        "support": [n] * n,
        "confusion": [],
        "groups": {"many": 0.5, "medium": None, "few": None},
        **dict.fromkeys(("balanced_accuracy", "accuracy", "macro_f1", "g_mean", "worst_class", "ece"), 0.5),
    }
    print_figures("test split", metrics, [f"class {i}" for i in range(n)])
    printed = capsys.readouterr().out
    assert "the worst 20 of 30" in printed
    assert "class 19" in printed
    assert "class 20" not in printed


@pytest.mark.parametrize(
    ("untested", "named"), [(1, "'class 0'"), (5, "'class 3', 'class 4'"), (8, "'class 3', 'class 4' and 3 more")]
)
def test_classes_without_an_image_are_told(untested: int, named: str, caplog: pytest.LogCaptureFixture) -> None:
    headline = {
        "groups": {"many": 0.5, "medium": None, "few": None},
        **dict.fromkeys(("balanced_accuracy", "accuracy", "macro_f1", "g_mean", "worst_class", "ece"), 0.5),
    }
    support = [0] * untested + [4, 4]
    recall = [0.5 if n else None for n in support]
    metrics = {"recall": recall, "support": support, "confusion": [], **headline}
    print_figures("test split", metrics, [f"class {i}" for i in range(len(support))])
    (record,) = caplog.records
    assert f"accuracies are over 2 of {untested + 2} classes: no image here of 'class 0'" in record.getMessage()
    assert record.getMessage().endswith(named)
