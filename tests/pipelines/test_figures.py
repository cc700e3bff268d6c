"""The pictures of reports."""

from __future__ import annotations

import warnings

import pytest

from pipelines.figures import arm_comparison, class_distribution, distance_histograms, loss_curves, save_png


def test_intervals_end_where_accuracies_do() -> None:
    figure = arm_comparison({"a": {"few": (25.0, 317.7)}, "b": {"few": (100.0, 2.0)}, "c": {}}, {"few": "few-shot"})
    low, high = figure.axes[0].get_xlim()
    assert (low, high) == pytest.approx((-5, 105))  # a margin of 5 % about 0 to 100
    arm_comparison({"rounded up": {"few": (100.00000000000001, 0.5)}}, {"few": "few-shot"})


def test_bars_keep_under_the_top() -> None:
    figure = class_distribution(["a", "b"], [10, 2], [0, 8])
    assert figure.axes[0].get_ylim() == pytest.approx((0, 10.5))


def test_logarithmic_axes_have_plain_numbers() -> None:
    for figure in (
        loss_curves({"a": [{"updates": 1, "train_loss": 12.0}, {"updates": 2, "train_loss": 0.05}]}),
        loss_curves({"a": [{"updates": 1, "train_loss": 2.2}, {"updates": 2, "train_loss": 1.4}]}),
        class_distribution(["a", "b"], [5000, 2], None),
    ):
        save_png(figure)
        axis = figure.axes[0].yaxis
        shown = [label.get_text() for label in (*axis.get_ticklabels(), *axis.get_ticklabels(minor=True))]
        numbers = [text for text in shown if text]
        assert len(numbers) >= 2
        assert all(text == f"{float(text):g}" for text in numbers)


def test_class_names_in_any_script_are_drawn_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert save_png(class_distribution(["猫", "นก", "\U0001f600"], [3, 2, 1], None)).startswith(b"\x89PNG")
        histogram = {"edges": [0, 1, 2], "real": [1, 2], "kept": [0, 3], "rejected": [0, 0]}
        assert save_png(distance_histograms([("นก", histogram, 0.5)])).startswith(b"\x89PNG")


def test_class_names_are_no_formulas() -> None:
    figure = class_distribution(["a$b$c", "$\\frac{$"], [3, 2], None)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["a$b$c", "$\\frac{$"]
    assert save_png(figure).startswith(b"\x89PNG")


def test_long_class_names_leave_room_for_the_bars() -> None:
    figure = class_distribution(["x" * 200, "y" * 40], [3, 2], None)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["x" * 39 + "…", "y" * 40]
