from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebalance.errors import InputError
from rebalance.profiles import long_tail_counts, long_tail_subset


@pytest.mark.parametrize("profile", ["exp", "step"])
def test_counts_fall_from_head_to_tail(profile: str) -> None:
    counts = long_tail_counts(50_000, 100, imbalance_factor=50, profile=profile)
    assert (counts[0], counts[-1], counts.dtype) == (500, 10, np.int64)
    assert (np.diff(counts) <= 0).all()


def test_exponential_counts_are_geometric_and_truncated() -> None:
    counts = long_tail_counts(30_000, 7, imbalance_factor=64)
    ratios = counts[1:] / counts[:-1]
    np.testing.assert_allclose(ratios, 0.5, rtol=0.02)
    assert long_tail_counts(1000, 10, imbalance_factor=0.29, profile="step").tolist() == [100] * 5 + [28] * 5


def test_a_factor_and_its_inverse_mean_the_same() -> None:
    for factor in (1, 4, 10, 100):
        np.testing.assert_array_equal(
            long_tail_counts(50_000, 10, imbalance_factor=factor),
            long_tail_counts(50_000, 10, imbalance_factor=1 / factor),
        )


def test_no_class_is_lost() -> None:
    assert long_tail_counts(700, 7, imbalance_factor=10, profile="step").tolist() == [100] * 3 + [10] * 4
    assert long_tail_counts(10, 1, imbalance_factor=10).tolist() == [10]
    assert long_tail_counts(10, 1, imbalance_factor=10, profile="step").tolist() == [10]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((100, 10), {"imbalance_factor": 0}, "expected an imbalance factor > 0; got 0"),
        ((100, 10), {"imbalance_factor": float("nan")}, "expected an imbalance factor > 0"),
        (
            (100, 10),
            {"imbalance_factor": 10, "profile": "expo"},
            "a profile out of exp, step; got 'expo'; did you mean 'exp'",
        ),
        ((50, 0), {"imbalance_factor": 1}, "at least one class; got 0"),
        ((50, 10), {"imbalance_factor": 100}, "class 4 would be empty; use an imbalance factor below 5"),
    ],
)
def test_impossible_profiles_are_refused(arguments: tuple[int, int], options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        long_tail_counts(*arguments, **options)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 6), min_size=3, max_size=3))
def test_a_subset_keeps_that_many_different_rows_of_each_class(seed: int, counts: list[int]) -> None:
    targets = np.tile([2, 0, 1], 6)
    rows = long_tail_subset(targets, counts, seed)
    assert np.unique(rows).size == rows.size
    assert targets[rows].tolist() == [c for c in range(3) for _ in range(counts[c])]
    np.testing.assert_array_equal(rows, long_tail_subset(targets, counts, seed))


def test_a_smaller_subset_is_the_beginning_of_a_larger_one_of_each_class() -> None:
    targets = np.repeat([0, 1], 50)
    large, small = long_tail_subset(targets, [30, 20], 5), long_tail_subset(targets, [10, 20], 5)
    np.testing.assert_array_equal(small, np.concatenate([large[:10], large[30:]]))


def test_counts_as_a_series_are_taken_by_class_id() -> None:
    rows = long_tail_subset([0, 0, 0, 1, 1, 1], pd.Series([3, 1], [1, 0]))
    assert np.bincount(rows // 3).tolist() == [1, 3]


def test_the_global_random_state_is_left_alone() -> None:
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    long_tail_subset([0, 0, 1, 1], [1, 1])
    assert np.random.rand() == expected


def test_a_class_with_too_few_images_is_refused() -> None:
    with pytest.raises(InputError, match="expected at least 3 images of class 1; got 1"):
        long_tail_subset([0, 0, 1], [2, 3])
