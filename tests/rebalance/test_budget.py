from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebalance.budget import images_to_add
from rebalance.counts import effective_numbers
from rebalance.errors import InputError

COUNTS = [110, 40, 9, 2]
NAMES = ["bear", "cat", "dog", "elk"]


def effective_reference(rho: float, kappa: float, beta: float) -> list[int]:
    """The smallest real m with E(n + κ m) ≥ ρ E(110), by bisection, rounded."""

    def volume(n: float) -> float:
        return (1 - beta**n) / (1 - beta)

    found = []
    for n in COUNTS:
        low, high = 0.0, 1e6
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if volume(n + kappa * middle) < rho * volume(110) else (low, middle)
        found.append(round(min(high, 110 - n)) if volume(n) < rho * volume(110) else 0)
    return found


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("fill-to-head", [0, 70, 101, 108]),
        ("fill-to-median", [0, 0, 16, 22]),  # the median is 24.5
        ("ratio:2", [0, 70, 18, 4]),
        ("ratio:0.5", [0, 20, 4, 1]),
        ("ratio:1000", [0, 70, 101, 108]),
        ("fixed:75", [0, 70, 75, 75]),
        ("effective:1", [0, 70, 101, 108]),
    ],
)
def test_rules(rule: str, expected: list[int]) -> None:
    budget = images_to_add(COUNTS, rule)
    assert (budget.tolist(), budget.dtype) == (expected, np.int64)


@pytest.mark.parametrize("number", ["0", "2.5", "0.4", "-3", "inf", "nan", ""])
def test_a_fixed_number_of_images_is_whole(number: str) -> None:
    with pytest.raises(InputError, match=f"a whole number >= 1 .*; got 'fixed:{number}'; write for example fixed:500"):
        images_to_add(COUNTS, f"fixed:{number}")


@pytest.mark.parametrize("rho", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("kappa", [1.0, 0.5])
@pytest.mark.parametrize("beta", [0.9, 0.99])
def test_effective_rule_reaches_its_share_of_the_heads_volume(rho: float, kappa: float, beta: float) -> None:
    budget = images_to_add(COUNTS, f"effective:{rho}", kappa=kappa, cb_beta=beta)
    assert budget.tolist() == effective_reference(rho, kappa, beta)
    automatic = images_to_add(COUNTS, f"effective:{rho}", kappa=kappa)
    assert automatic.tolist() == effective_reference(rho, kappa, 1 - 1 / 110)


def test_one_image_covers_all_where_beta_is_zero() -> None:
    assert images_to_add(COUNTS, "effective:1", cb_beta=0.0).tolist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(effective_numbers(COUNTS, 0.0), np.ones(4))


def test_explicit_counts_by_name() -> None:
    budget = images_to_add(COUNTS, "explicit", explicit={"elk": 500, "bear": 1}, classes=NAMES)
    assert budget.tolist() == [1, 0, 0, 500]


def test_upper_bounds() -> None:
    assert images_to_add(COUNTS, max_per_class=80).tolist() == [0, 70, 80, 80]
    assert images_to_add(COUNTS, max_ratio=3).tolist() == [0, 70, 27, 6]
    assert images_to_add(COUNTS, max_images=1).tolist() == [0, 0, 0, 1]
    assert images_to_add(COUNTS, max_images=1000).tolist() == [0, 70, 101, 108]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=20), st.integers(1, 3000))
def test_a_bound_on_the_sum_scales_every_class_alike(counts: list[int], max_images: int) -> None:
    wanted = images_to_add(counts)
    bounded = images_to_add(counts, max_images=max_images)
    assert bounded.sum() == min(wanted.sum(), max_images)
    if wanted.sum() > max_images:
        assert np.abs(bounded - wanted * max_images / wanted.sum()).max() < 1


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("fill-to-tail", {}, "expected a budget rule; got 'fill-to-tail'; did you mean 'fill-to-head'"),
        ("ratio", {}, "expected a number > 0 after the colon; got 'ratio'"),
        ("ratio:0", {}, "expected a number > 0"),
        ("ratio:nan", {}, "expected a number > 0"),
        ("effective:1.5", {}, r"expected a number in \(0, 1\] after the colon; got 'effective:1.5'"),
        ("effective:0.5", {"kappa": 0}, r"expected kappa in \(0, 1\]; got 0"),
        ("effective:0.5", {"cb_beta": 1.0}, r"cb_beta in \[0, 1\)"),
        ("explicit", {}, "expected a count by class name; got none"),
        ("explicit", {"explicit": {"elks": 3}, "classes": NAMES}, "known class; got 'elks'; did you mean 'elk'"),
        ("fill-to-head", {"max_per_class": -1}, "expected max_per_class above 0; got -1; .* leave it out"),
        ("fill-to-head", {"max_images": 0}, "expected max_images above 0; got 0; 0 would make no image at all"),
        ("fill-to-head", {"max_ratio": float("nan")}, "expected max_ratio above 0; got nan"),
        ("explicit", {"explicit": {"elk": -3}, "classes": NAMES}, "expected counts >= 0; got -3 for 'elk'"),
    ],
)
def test_bad_rules_are_refused(rule: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        images_to_add(COUNTS, rule, **options)


def test_a_budget_of_a_series_is_in_the_order_of_the_class_ids() -> None:
    assert images_to_add(pd.Series([10, 4, 1], [2, 0, 1])).tolist() == images_to_add([4, 1, 10]).tolist() == [6, 9, 0]


def test_a_class_without_images_is_named() -> None:
    with pytest.raises(InputError, match="got 0 images of 'cat'"):
        images_to_add([3, 0], classes=["bear", "cat"])
