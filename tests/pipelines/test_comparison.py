from __future__ import annotations

import json
from typing import Any, get_args

import numpy as np
import pytest
from scipy import stats

from pipelines.comparison import ARM_TITLES, METRIC_TITLES, Comparison, Estimate, compare, estimate
from pipelines.config import ARMS, Arm


def metrics(balanced: float, few: float | None = 0.5, ece: float = 0.1) -> dict[str, Any]:
    return {
        "balanced_accuracy": balanced,
        "accuracy": balanced + 0.05,
        "macro_f1": balanced - 0.01,
        "g_mean": balanced - 0.02,
        "worst_class": 0.3,
        "ece": ece,
        "groups": {"many": 0.9, "medium": None, "few": few},
        "confusion": [[1]],  # what is not compared
    }


def arms(**balanced: list[float]) -> Comparison:
    return compare({arm: dict(enumerate(metrics(value) for value in values)) for arm, values in balanced.items()})


# Estimates


@pytest.mark.parametrize("values", [[0.8, 0.82, 0.84], [0.8, 0.8, 0.8, 0.81], [0.1, 0.9, 0.4, 0.35, 0.2]])
def test_the_interval_is_students(values: list[float]) -> None:
    found = estimate(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.n) == (pytest.approx(np.mean(values)), len(values))
    assert found.half_width is not None
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))


@pytest.mark.parametrize("values", [[0.875], [0.85, 0.9]])
def test_one_seed_or_two_have_no_interval(values: list[float]) -> None:
    found = estimate(values)
    assert found == Estimate(pytest.approx(0.875), None, len(values))
    assert found.percent() == "87.5"


def test_points_are_written_with_their_interval_and_sign() -> None:
    assert Estimate(0.8134, 0.0066, 3).percent() == "81.3 ± 0.7"
    assert Estimate(0.012, 0.004, 3).percent(signed=True) == "+1.2 ± 0.4"
    assert Estimate(-0.012, None, 1).percent(signed=True) == "-1.2"
    assert Estimate(-0.0002, None, 1).percent(signed=True) == "+0.0"


# Arms


def test_every_arm_and_metric_gets_an_estimate() -> None:
    found = arms(ce=[0.7, 0.72], rebalanced=[0.8, 0.81])
    assert found.arms["ce"]["balanced_accuracy"].mean == pytest.approx(0.71)
    assert found.arms["rebalanced"]["many_shot"] == Estimate(0.9, None, 2)
    assert set(found.arms["ce"]) == set(METRIC_TITLES) - {"medium_shot"}


def test_a_metric_that_one_seed_lacks_is_left_out() -> None:
    ours, theirs = {0: metrics(0.8), 1: metrics(0.8)}, {0: metrics(0.7), 1: metrics(0.7, few=None)}
    found = compare({"ce": theirs, "rebalanced": ours})
    assert "few_shot" not in found.arms["ce"]
    assert "few_shot" in found.arms["rebalanced"]
    assert "few_shot" not in found.differences["rebalanced", "ce"]
    assert "few-shot" not in found.words()[0]


def test_differences_are_paired_by_seed() -> None:
    """Seeds that vary by 20 points and arms that differ by one: only pairing sees it."""
    found = arms(ce=[0.5, 0.6, 0.7], rebalanced=[0.51, 0.611, 0.709])
    difference = found.differences["rebalanced", "ce"]["balanced_accuracy"]
    assert difference.mean == pytest.approx(0.01)
    low, _ = stats.t.interval(0.95, 2, loc=0.01, scale=stats.sem([0.01, 0.011, 0.009]))
    assert difference.half_width == pytest.approx(0.01 - low)
    assert found.words() == [
        "re-balanced against plain cross entropy: +1.0 ± 0.2 points of balanced accuracy "
        "(many-shot +0.0 ± 0.0, few-shot +0.0 ± 0.0): it helped."
    ]


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ([0.81, 0.82, 0.83], "it helped"),
        ([0.61, 0.62, 0.63], "it hurt"),
        ([0.71, 0.69, 0.72], "no clear difference"),
        ([0.7, 0.7, 0.7], "no clear difference"),
    ],
)
def test_the_words_follow_the_interval(ours: list[float], verdict: str) -> None:
    theirs = [0.71, 0.72, 0.73] if verdict != "no clear difference" else [0.7, 0.7, 0.7]
    (line,) = arms(ce=theirs, rebalanced=ours).words()
    assert line.endswith(f": {verdict}.")


@pytest.mark.parametrize(("n", "said"), [(1, "one seed"), (2, "two seeds")])
def test_fewer_than_three_seeds_get_no_judgement(n: int, said: str) -> None:
    (line,) = arms(ce=[0.7] * n, rebalanced=[0.9] * n).words()
    assert "+20.0" in line
    assert line.endswith(f"{said}, so no judgement.")


def test_only_arms_that_were_run_are_compared() -> None:
    found = arms(ce=[0.7, 0.7], synthetic=[0.8, 0.8])
    assert found.differences == {}
    assert found.words() == []
    everything = arms(**{arm: [0.7, 0.71] for arm in ARMS})
    assert set(everything.differences) == {
        ("rebalanced", "ce"),
        ("replay", "rebalanced"),
        ("synthetic", "rebalanced"),
        ("synthetic", "replay"),
        ("synthetic", "unfiltered"),
    }


def test_seeds_that_both_have_are_paired_in_whatever_order() -> None:
    ours = {2: metrics(0.81), 0: metrics(0.61), 7: metrics(0.1)}
    theirs = {0: metrics(0.6), 1: metrics(0.9), 2: metrics(0.8)}
    found = compare({"mine": ours, "yours": theirs}, [("mine", "yours")], titles={"yours": "theirs"})
    assert found.differences["mine", "yours"]["balanced_accuracy"].n == 2
    assert found.words()[0].startswith("mine against theirs: +1.0 points")
    assert compare({"mine": ours, "yours": {1: metrics(0.5)}}, [("mine", "yours")]).differences == {}


def test_figures_are_plain_values() -> None:
    found = arms(ce=[0.7, 0.72], rebalanced=[0.8, 0.81]).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["arms"]["ce"]["accuracy"]["n"] == 2
    assert (found["differences"][0]["arm"], found["differences"][0]["against"]) == ("rebalanced", "ce")
    assert found["words"]


def test_every_arm_has_a_title() -> None:
    assert set(ARM_TITLES) == set(get_args(Arm)) == {*ARMS, "feedback"}
