"""What is drawn how often."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline
from scipy.stats import chisquare
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from rebalance.errors import InputError
from rebalance.resampling import (
    DeferredSampler,
    EffectiveNumberSampler,
    FillSampler,
    InverseFrequencySampler,
    ProgressiveSampler,
    SquareRootSampler,
)
from rebalance.resampling.base import AnyRowsSampler, class_codes
from rebalance.weights import class_weights, draw_shares

COUNTS = np.array([300, 70, 20, 3, 1])
CODES = np.random.default_rng(1).permutation(np.repeat(np.arange(5), COUNTS))
NAMES = np.array(["bear", "cat", "dog", "elk", "ñandú"])
ROWS = np.arange(CODES.size).reshape(-1, 1)
REDRAW = [
    (InverseFrequencySampler(random_state=3), draw_shares(COUNTS, class_weights(COUNTS))),
    (InverseFrequencySampler(exponent=0.3, random_state=3), draw_shares(COUNTS, class_weights(COUNTS, strength=0.3))),
    (SquareRootSampler(random_state=3), np.sqrt(COUNTS) / np.sqrt(COUNTS).sum()),
    (
        EffectiveNumberSampler(cb_beta=0.99, random_state=3),
        draw_shares(COUNTS, class_weights(COUNTS, "effective-number", cb_beta=0.99)),
    ),
    (ProgressiveSampler(progress=0.25, random_state=3), 0.75 * COUNTS / 394 + 0.25 / 5),
    (DeferredSampler(random_state=3), np.full(5, 0.2)),
]


@pytest.mark.parametrize(("sampler", "shares"), REDRAW)
def test_redraw_follows_the_shares(sampler: AnyRowsSampler, shares: np.ndarray) -> None:
    X, y = sampler.fit_resample(ROWS, CODES)
    assert len(X) == len(y) == CODES.size
    assert np.abs(np.bincount(y, minlength=5) - shares * CODES.size).max() < 1
    np.testing.assert_array_equal(X[:, 0], sampler.sample_indices_)
    np.testing.assert_array_equal(y, CODES[sampler.sample_indices_])


@pytest.mark.parametrize(("sampler", "shares"), REDRAW[:5])
def test_class_frequencies_over_seeds_follow_the_shares(sampler: AnyRowsSampler, shares: np.ndarray) -> None:
    total = np.zeros(5)
    for seed in range(200):
        total += np.bincount(
            clone(sampler).set_params(n_samples=31, random_state=seed).fit_resample(ROWS, CODES)[1], minlength=5
        )
    assert chisquare(total, shares * total.sum()).pvalue > 0.01


def test_exponents_0_and_1_are_the_two_known_samplers() -> None:
    plain = InverseFrequencySampler(exponent=0, random_state=0)
    assert sorted(plain.fit_resample(ROWS, CODES)[0][:, 0]) == list(range(CODES.size))
    balanced = InverseFrequencySampler(n_samples=1000, random_state=0).fit_resample(ROWS, CODES)[1]
    assert np.bincount(balanced).tolist() == [200] * 5


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.sampled_from(["owl", "newt", "lynx", "a b"]), min_size=2, max_size=60).filter(
        lambda y: len(set(y)) > 1
    ),
    exponent=st.floats(0, 3),
    n_samples=st.integers(1, 200),
    seed=st.integers(0, 2**31),
)
def test_members_are_drawn_evenly(labels: list[str], exponent: float, n_samples: int, seed: int) -> None:
    sampler = InverseFrequencySampler(exponent=exponent, n_samples=n_samples, random_state=seed)
    X, y = sampler.fit_resample([[row] for row in range(len(labels))], labels)
    assert isinstance(X, list)
    assert isinstance(y, list)
    rows = np.array(X)[:, 0]
    assert [labels[row] for row in rows] == y
    times = np.bincount(rows, minlength=len(labels))
    for name in set(labels):
        of_class = times[np.array(labels) == name]
        assert of_class.max() - of_class.min() <= 1


def test_fill_repeats_evenly_after_the_rows_of_the_input() -> None:
    sampler = FillSampler(random_state=0)
    X, y = sampler.fit_resample(ROWS, NAMES[CODES])
    assert Counter(y.tolist()) == dict.fromkeys(NAMES.tolist(), 300)
    np.testing.assert_array_equal(X[: CODES.size], ROWS)
    np.testing.assert_array_equal(X[:, 0], sampler.sample_indices_)
    assert sampler.n_added_ == {"cat": 230, "dog": 280, "elk": 297, "ñandú": 299}
    assert sampler.sampling_strategy_ == sampler.n_added_
    assert not sampler.is_synthetic_.any()
    times = np.bincount(X[:, 0])
    for c in range(5):
        of_class = times[c == CODES]
        assert of_class.max() - of_class.min() <= 1


@pytest.mark.parametrize(
    "strategy",
    [
        "auto",
        "minority",
        "not minority",
        "not majority",
        "all",
        {"elk": 10, "dog": 20},
        lambda y: {"cat": 71, "bear": int((y == "bear").sum()) + 1},
    ],
)
def test_fill_counts_as_imbalanced_learn_does(strategy: Any) -> None:
    ours = FillSampler(sampling_strategy=strategy, random_state=0).fit_resample(ROWS, NAMES[CODES])[1]
    theirs = RandomOverSampler(sampling_strategy=strategy, random_state=0).fit_resample(ROWS, NAMES[CODES])[1]
    assert Counter(ours.tolist()) == Counter(theirs.tolist())


def test_fill_by_ratio_and_its_refusals() -> None:
    y = np.repeat(["no", "yes"], [100, 10])
    sampler = FillSampler(sampling_strategy=0.5, random_state=0)
    assert Counter(sampler.fit_resample(ROWS[:110], y)[1].tolist()) == {"no": 100, "yes": 50}
    with pytest.raises(ValueError, match="only when the type of target is binary"):
        sampler.fit_resample(ROWS, CODES)
    with pytest.raises(ValueError, match="not present in the data"):
        FillSampler(sampling_strategy={"maybe": 3}).fit_resample(ROWS[:110], y)
    with pytest.raises(ValueError, match="greater or equal to the original number"):
        FillSampler(sampling_strategy={"no": 3}).fit_resample(ROWS[:110], y)


@pytest.mark.parametrize(
    ("sampler", "parameter"),
    [
        (InverseFrequencySampler(exponent=-0.1), "exponent"),
        (InverseFrequencySampler(n_samples=0), "n_samples"),
        (EffectiveNumberSampler(cb_beta=1.0), "cb_beta"),
        (ProgressiveSampler(progress=1.5), "progress"),
        (DeferredSampler(start=-1), "start"),
        (DeferredSampler(sampler=3), "sampler"),
        (FillSampler(generator=3), "generator"),
        (FillSampler(sampling_strategy="most"), "sampling_strategy"),
    ],
)
def test_bad_parameters_are_named(sampler: AnyRowsSampler, parameter: str) -> None:
    for labels in (CODES, CODES.astype(float)):
        with pytest.raises(ValueError, match=f"The '{parameter}' parameter of {type(sampler).__name__} must be"):
            sampler.fit_resample(ROWS, labels)


def test_the_same_random_state_draws_the_same() -> None:
    for sampler in [*(sampler for sampler, _ in REDRAW), FillSampler(random_state=3)]:
        first = clone(sampler).fit_resample(ROWS, CODES)[0]
        np.testing.assert_array_equal(first, clone(sampler).fit_resample(ROWS, CODES)[0])
        other = clone(sampler).set_params(random_state=4).fit_resample(ROWS, CODES)[0]
        assert (first != other).any()
    state = np.random.RandomState(0)
    stream = InverseFrequencySampler(random_state=state)
    assert (stream.fit_resample(ROWS, CODES)[0] != stream.fit_resample(ROWS, CODES)[0]).any()


def test_samplers_pickle_and_stand_in_a_grid_search() -> None:
    pipeline = make_pipeline(InverseFrequencySampler(random_state=0), LogisticRegression())
    X = np.random.default_rng(0).normal(CODES[:, None] % 2, 1.0, (CODES.size, 2))
    search = GridSearchCV(
        pipeline, {"inversefrequencysampler__exponent": [0.0, 0.5, 1.0]}, cv=3, scoring="balanced_accuracy"
    )
    search.fit(X, CODES % 2)
    assert len(search.cv_results_["params"]) == 3
    sampler = search.best_estimator_[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(sampler)).sample_indices_, sampler.sample_indices_)


def test_deferred_hands_over_from_its_start_on() -> None:
    for progress, balanced in ((0.0, False), (0.79, False), (0.8, True), (1.0, True)):
        sampler = DeferredSampler(progress=progress, random_state=0)
        X, y = sampler.fit_resample(ROWS, CODES)
        assert (np.ptp(np.bincount(y)) <= 1) == balanced
        assert (sampler.sampler_ is not None) == balanced
        if not balanced:
            np.testing.assert_array_equal(X, ROWS)
            np.testing.assert_array_equal(sampler.sample_indices_, np.arange(CODES.size))


def test_deferred_takes_any_sampler() -> None:
    X = np.random.default_rng(0).normal(size=(60, 2))
    y = np.repeat([0, 1], [45, 15])
    deferred = DeferredSampler(sampler=SMOTE(), random_state=0)
    resampled, labels = deferred.fit_resample(X, y)
    assert np.bincount(labels).tolist() == [45, 45]
    assert not hasattr(deferred, "sample_indices_")
    np.testing.assert_array_equal(resampled, clone(deferred).fit_resample(X, y)[0])
    assert deferred.sampler.random_state is None
    fixed = DeferredSampler(sampler=InverseFrequencySampler(random_state=5)).fit_resample(X, y)[0]
    np.testing.assert_array_equal(fixed, InverseFrequencySampler(random_state=5).fit_resample(X, y)[0])


def test_deferred_forgets_the_rows_of_an_earlier_sampler() -> None:
    X, y = np.random.default_rng(0).normal(size=(60, 2)), np.repeat([0, 1], [45, 15])
    deferred = DeferredSampler(random_state=0)
    deferred.fit_resample(X, y)
    assert len(deferred.sample_indices_) == 60
    deferred.set_params(sampler=SMOTE()).fit_resample(X, y)
    assert not hasattr(deferred, "sample_indices_")


@pytest.mark.parametrize("n", [20.5, float("nan"), float("inf")])
@pytest.mark.parametrize("labels", [[0] * 9 + [1], [0.0] * 9 + [1.0]])
def test_fill_takes_whole_numbers_of_rows(n: float, labels: list[float]) -> None:
    X = np.arange(10)[:, None]
    assert len(FillSampler(sampling_strategy={1: 20.0}).fit_resample(X, labels)[1]) == 29
    with pytest.raises(InputError, match=rf"whole numbers of rows in sampling_strategy; got {n} of 1(\.0)?; round it"):
        FillSampler(sampling_strategy={1: n}).fit_resample(X, labels)
    with pytest.raises(InputError, match="whole numbers of rows"):
        FillSampler(sampling_strategy=lambda _: {1: n}).fit_resample(X, labels)


@settings(deadline=None)
@given(
    labels=st.lists(st.integers(-50, 50), min_size=1), dtype=st.sampled_from([np.int64, np.int8, float, str, object])
)
def test_class_codes_are_numpy_unique(labels: list[int], dtype: type) -> None:
    y = np.array([str(label) for label in labels] if dtype is object else labels, dtype=dtype)
    classes, codes = class_codes(y)
    expected_classes, expected_codes = np.unique(y, return_inverse=True)
    np.testing.assert_array_equal(classes, expected_classes)
    np.testing.assert_array_equal(codes, expected_codes)
    assert classes.dtype == y.dtype


def test_a_hundred_thousand_classes_of_one_row() -> None:
    labels = np.arange(200_000) % 100_000
    labels[100_000:] = 0
    X, y = InverseFrequencySampler(random_state=0).fit_resample(np.arange(200_000)[:, None], labels)
    assert np.bincount(y).tolist() == [2] * 100_000
    assert np.unique(X).size == 100_001
