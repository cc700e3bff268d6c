"""The pictures of reports."""

from __future__ import annotations

import warnings

import pytest

from pipelines.figures import arm_comparison, class_distribution, save_png


def test_intervals_end_where_accuracies_do() -> None:
    figure = arm_comparison({"a": {"few": (25.0, 317.7)}, "b": {"few": (100.0, 2.0)}, "c": {}}, {"few": "few-shot"})
    low, high = figure.axes[0].get_xlim()
    assert (low, high) == pytest.approx((-5, 105))  # a margin of 5 % about 0 to 100


def test_bars_keep_under_the_top() -> None:
    figure = class_distribution(["a", "b"], [10, 2], [0, 8])
    assert figure.axes[0].get_ylim() == pytest.approx((0, 10.5))


def test_class_names_in_any_script_are_drawn_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert save_png(class_distribution(["猫", "นก", "\U0001f600"], [3, 2, 1], None)).startswith(b"\x89PNG")
