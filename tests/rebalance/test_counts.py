from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rebalance.counts import (
    check_counts,
    class_counts,
    effective_numbers,
    gini,
    imbalance_factor,
    imbalance_statistics,
    in_class_order,
    resolve_cb_beta,
    shot_groups,
)
from rebalance.errors import InputError

COUNTS = st.lists(st.integers(1, 10_000), min_size=1, max_size=30)


@pytest.mark.parametrize(
    "targets", [[2, 0, 2], np.array([2, 0, 2], np.uint8), torch.tensor([2, 0, 2]), [[2], [0], [2]]]
)
def test_counts_of_any_targets(targets: object) -> None:
    counts = class_counts(targets)  # type: ignore[arg-type]
    assert (counts.tolist(), counts.dtype) == ([1, 0, 2], np.int64)


def test_counts_reach_to_n_classes() -> None:
    assert class_counts([1], 4).tolist() == [0, 1, 0, 0]
    assert class_counts([], 2).tolist() == [0, 0]
    assert class_counts([]).tolist() == []


@pytest.mark.parametrize(
    ("targets", "message"),
    [([0, 3], "class ids from 0 to 2; got 3"), ([-1, 0], "got -1"), ([-1, 7], "got -1; pass n_classes that covers")],
)
def test_targets_outside_the_classes_are_refused(targets: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        class_counts(targets, 3)


@pytest.mark.parametrize("targets", [[0.5, 1.0], ["a", "b"], [None]])
def test_targets_that_are_no_class_ids_are_refused(targets: list[object]) -> None:
    with pytest.raises(InputError, match="expected whole numbers as class ids; got targets of type"):
        class_counts(targets)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("counts", "classes", "message"),
    [
        ([], None, "expected counts of at least one class; got no class"),
        ([3, 0], ["owl", "newt"], "got 0 images of 'newt'; remove the class or add an image"),
        ([3, 0], None, "got 0 images of class 1"),
        ([-2, 1], None, "got -2 images of class 0"),
        ([float("nan"), 1], None, "got nan images of class 0"),
    ],
)
def test_counts_that_leave_a_weight_undefined_are_refused(
    counts: list[float], classes: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_counts(counts, classes)


def test_counts_may_be_fractions() -> None:
    np.testing.assert_array_equal(check_counts(torch.tensor([1.5, 2.0])), [1.5, 2.0])


def test_imbalance_factor_is_of_the_classes_with_images() -> None:
    assert imbalance_factor([500, 0, 5]) == 100
    assert imbalance_factor([7, 7]) == 1
    assert math.isnan(imbalance_factor([0, 0]))


@given(COUNTS)
def test_gini_is_the_mean_difference_over_twice_the_mean(counts: list[int]) -> None:
    n = len(counts)
    reference = Fraction(sum(abs(a - b) for a in counts for b in counts), 2 * n * sum(counts))
    assert gini(counts) == pytest.approx(float(reference), abs=1e-12)
    assert gini(counts[::-1]) == gini(counts)


def test_gini_of_the_extremes() -> None:
    assert gini([4, 4, 4]) == 0
    assert gini([0, 0, 0, 8]) == 0.75
    assert math.isnan(gini([0, 0]))


@given(COUNTS, st.sampled_from([0.0, 0.5, 0.9, 0.999, 0.9999]))
def test_effective_numbers_are_a_geometric_sum(counts: list[int], beta: float) -> None:
    few = [min(n, 300) for n in counts]
    reference = [math.fsum(beta**i for i in range(n)) for n in few]
    np.testing.assert_allclose(effective_numbers(few, beta), reference, rtol=1e-12)


def test_effective_numbers_keep_their_digits_near_one() -> None:
    beta = 1 - 1e-9
    reference = [float(sum(Fraction(beta) ** i for i in range(n))) for n in (1, 2, 5)]
    np.testing.assert_allclose(effective_numbers([1, 2, 5], beta), reference, rtol=1e-15)


def test_effective_numbers_go_from_one_to_the_count() -> None:
    np.testing.assert_array_equal(effective_numbers([3, 0, 1], 0.0), [1, 0, 1])
    np.testing.assert_allclose(effective_numbers([3, 50], 1 - 1e-12), [3, 50], rtol=1e-9)


def test_automatic_beta_is_tied_to_the_largest_class() -> None:
    assert resolve_cb_beta("auto", [10, 1000, 3]) == 1 - 1 / 1000
    assert resolve_cb_beta(0.9, [1]) == 0.9
    np.testing.assert_array_equal(effective_numbers([10, 1000], "auto"), effective_numbers([10, 1000], 0.999))


@pytest.mark.parametrize("counts", [[], [0, 0]])
def test_automatic_beta_needs_an_image(counts: list[int]) -> None:
    with pytest.raises(InputError, match="expected a class with an image; got none"):
        resolve_cb_beta("auto", counts)


@pytest.mark.parametrize("beta", [1.0, -0.1, 2, float("nan"), "best"])
def test_beta_out_of_range_is_refused(beta: float) -> None:
    with pytest.raises(InputError, match=r"expected cb_beta in \[0, 1\) or 'auto'"):
        effective_numbers([1, 2], beta)


def test_groups_include_both_ends_in_medium() -> None:
    assert shot_groups([101, 100, 20, 19, 0]) == ["many", "medium", "medium", "few", "few"]
    assert shot_groups([5, 3, 2], many=4, few=3) == ["many", "medium", "few"]
    with pytest.raises(InputError, match="expected few <= many"):
        shot_groups([1], many=5, few=6)


def test_statistics_hold_all_of_it() -> None:
    found = imbalance_statistics([200, 50, 2])
    assert (found.n_images, found.n_classes, found.imbalance_factor) == (252, 3, 100)
    assert found.gini == gini([200, 50, 2])
    assert found.effective_numbers == tuple(effective_numbers([200, 50, 2]).tolist())
    assert found.groups == ("many", "medium", "few")


BY_FREQUENCY = pd.Series([2, 0, 1, 1, 1, 0]).value_counts()  # index 1, 0, 2 over the counts 3, 2, 1


def test_a_series_is_taken_by_its_index() -> None:
    assert np.asarray(in_class_order(BY_FREQUENCY)).tolist() == [2, 3, 1]
    assert np.asarray(in_class_order(BY_FREQUENCY.to_frame())).tolist() == [[2], [3], [1]]
    assert check_counts(BY_FREQUENCY).tolist() == [2, 3, 1]
    assert effective_numbers(BY_FREQUENCY, 0.5).tolist() == [1.5, 1.75, 1]
    assert shot_groups(BY_FREQUENCY, many=2, few=2) == ["medium", "many", "few"]
    assert imbalance_statistics(BY_FREQUENCY, many=2, few=2).groups == ("medium", "many", "few")


def test_a_series_of_names_is_taken_in_the_order_of_the_classes() -> None:
    counts = pd.Series(["owl", "cat", "cat", "dog", "dog", "dog"]).value_counts()
    assert check_counts(counts, ["cat", "dog", "owl"]).tolist() == [2, 3, 1]
    assert check_counts(BY_FREQUENCY, ["cat", "dog", "owl"]).tolist() == [2, 3, 1]
    assert (gini(counts), imbalance_factor(counts)) == (gini([1, 2, 3]), 3)


@pytest.mark.parametrize("index", [["cat", "dog", "owl"], [0, 1, 3], [0, 1, 1], [1, 2, 3]])
def test_a_series_of_other_classes_is_refused(index: list[object]) -> None:
    counts = pd.Series([3, 2, 1], index)
    named = "a Series by class id, 0 to 2; got the index "
    with pytest.raises(InputError, match=named + ", ".join(map(repr, index))):
        shot_groups(counts)
    with pytest.raises(InputError, match=r"or by class name; got the index .* pass for example counts.reindex"):
        check_counts(counts, ["cat", "dog", "elk"])


@pytest.mark.parametrize(
    "statistic", [check_counts, imbalance_factor, gini, effective_numbers, shot_groups, imbalance_statistics]
)
def test_counts_by_name_are_refused(statistic: Any) -> None:
    with pytest.raises(InputError, match="in the order of the class ids; got a Counter; pass for example"):
        statistic(Counter(cat=2, dog=1))
