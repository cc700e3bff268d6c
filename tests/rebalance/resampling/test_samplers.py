from __future__ import annotations

import pickle
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline
from scipy.stats import chisquare
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import FunctionTransformer

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
SAMPLERS = [sampler for sampler, _ in REDRAW] + [FillSampler(random_state=3), DeferredSampler(progress=0.1)]


class MeanNoise(BaseEstimator):
    """A tiny real generator: the mean image of the class, and noise."""

    def __init__(self, scale: float = 2.0) -> None:
        self.scale = scale

    def fit(self, images: np.ndarray, labels: np.ndarray) -> MeanNoise:
        self.classes_ = np.unique(labels)
        self.means_ = np.stack([images[labels == c].mean(axis=0) for c in self.classes_])
        self.dtype_ = images.dtype
        return self

    def sample(self, labels: np.ndarray, *, random_state: int) -> np.ndarray:
        means = self.means_[np.searchsorted(self.classes_, labels)]
        noisy = means + np.random.default_rng(random_state).normal(0, self.scale, means.shape)
        return np.clip(np.rint(noisy), 0, 255).astype(self.dtype_)


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


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_image_stacks_keep_dtype_and_shape(sampler: AnyRowsSampler, dtype: type) -> None:
    images = np.random.default_rng(0).integers(0, 256, (CODES.size, 4, 5, 3)).astype(dtype)
    before = images.copy()
    X, y = sampler.fit_resample(images, NAMES[CODES])
    assert (X.dtype, X.shape[1:], len(X)) == (dtype, (4, 5, 3), len(y))
    np.testing.assert_array_equal(X, images[sampler.sample_indices_])
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize(
    "labels", [CODES, NAMES[CODES], CODES % 2 == 0, CODES.astype(float), NAMES[CODES].astype(object)]
)
def test_every_kind_of_rows_and_labels(sampler: AnyRowsSampler, labels: np.ndarray) -> None:
    paths = np.array([f"images/{row}.jpg" for row in range(CODES.size)])
    with_nan = np.where(np.arange(CODES.size) % 7 == 0, np.nan, 1.0).reshape(-1, 1)
    frame = pd.DataFrame(
        {"path": paths, "width": np.arange(CODES.size, dtype=np.int16)}, index=np.arange(CODES.size) + 1000
    )
    sparse = scipy.sparse.random(CODES.size, 6, density=0.3, format="csr", random_state=0)
    for rows in (paths.reshape(-1, 1), paths.reshape(-1, 1).astype(object), with_nan, sparse, sparse.tocsc(), frame):
        X, y = sampler.fit_resample(rows, labels)
        taken = sampler.sample_indices_
        assert y.dtype == labels.dtype
        np.testing.assert_array_equal(y, labels[taken])
        if isinstance(rows, pd.DataFrame):
            pd.testing.assert_frame_equal(X, rows.iloc[taken])
        elif scipy.sparse.issparse(rows):
            assert X.format == rows.format
            assert (rows.tocsr()[taken] != X).nnz == 0
        else:
            assert X.dtype == rows.dtype
            np.testing.assert_array_equal(X, rows[taken])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_label_containers_come_back(sampler: AnyRowsSampler) -> None:
    frame = pd.DataFrame({"path": np.arange(CODES.size)}, index=np.arange(CODES.size) + 1000)
    for series in (pd.Series(NAMES[CODES], name="kind", index=frame.index), pd.Series(NAMES[CODES], dtype="category")):
        X, y = sampler.fit_resample(frame, series)
        assert (y.name, y.dtype) == (series.name, series.dtype)
        pd.testing.assert_index_equal(y.index, X.index)
    one_hot = np.eye(5, dtype=int)[CODES]
    y = sampler.fit_resample(ROWS, one_hot)[1]
    np.testing.assert_array_equal(y, one_hot[sampler.sample_indices_])
    y = sampler.fit_resample(ROWS, CODES[:, None])[1]
    np.testing.assert_array_equal(y, CODES[sampler.sample_indices_])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_one_look_at_the_labels_ends_as_imbalanced_learns_way(sampler: AnyRowsSampler) -> None:
    labels = NAMES[CODES].astype(object)
    quick, slow = clone(sampler).set_params(random_state=1), clone(sampler).set_params(random_state=1)
    X, y = quick.fit_resample(ROWS, labels)
    other_X, other_y = super(AnyRowsSampler, slow).fit_resample(ROWS, labels)
    np.testing.assert_array_equal(X, other_X)
    np.testing.assert_array_equal(y, other_y)
    assert {k: v for k, v in vars(quick).items() if k.endswith("strategy_")} == {
        k: v for k, v in vars(slow).items() if k.endswith("strategy_")
    }
    assert quick.n_features_in_ == slow.n_features_in_ == 1


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_what_cannot_be_resampled_is_refused(sampler: AnyRowsSampler) -> None:
    with pytest.raises(ValueError, match=r"needs to have more than 1 class\. Got 1 class"):
        sampler.fit_resample(ROWS[:3], ["a", "a", "a"])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        sampler.fit_resample(ROWS, [0, 1])
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        sampler.fit_resample(ROWS[:3], [0.5, 1.5, 2.5])
    with pytest.raises(ValueError, match="Multilabel and multioutput targets are not supported"):
        sampler.fit_resample(ROWS[:3], np.array([[1, 1], [0, 1], [1, 0]]))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        sampler.fit_resample(["a.jpg", "b.jpg", "c.jpg"], [0, 1, 1])
    with pytest.raises((ValueError, TypeError)):
        sampler.fit_resample(ROWS[:3], None)


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
    for sampler in SAMPLERS[:-1]:
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


def test_generated_images_fill_up_in_a_pipeline() -> None:
    images = np.clip(np.random.default_rng(0).normal(CODES[:, None, None] * 50, 4, (CODES.size, 6, 6)), 0, 255).astype(
        np.uint8
    )
    flatten = FunctionTransformer(lambda stack: stack.reshape(len(stack), -1) / 255)  # pixels in [0, 1]
    generator = MeanNoise()
    fill = FillSampler(generator=generator, random_state=0)
    pipeline = make_pipeline(fill, flatten, LogisticRegression(max_iter=1000)).fit(images, NAMES[CODES])
    assert pipeline.score(images, NAMES[CODES]) > 0.95
    assert not hasattr(generator, "means_")  # cloned, not fitted
    sampler = pipeline[0]
    X, y = sampler.fit_resample(images, NAMES[CODES])
    assert (X.dtype, X.shape) == (np.uint8, (1500, 6, 6))
    np.testing.assert_array_equal(X[: CODES.size], images)
    np.testing.assert_array_equal(sampler.is_synthetic_, np.arange(1500) >= CODES.size)
    assert sampler.n_added_ == {"cat": 230, "dog": 280, "elk": 297, "ñandú": 299}
    assert Counter(y[sampler.is_synthetic_].tolist()) == sampler.n_added_
    made, names = X[sampler.is_synthetic_], y[sampler.is_synthetic_]
    for code, name in enumerate(NAMES[1:], 1):
        assert abs(made[names == name].mean() - 50 * code) < 6
    assert not hasattr(sampler, "sample_indices_")
    np.testing.assert_array_equal(X, clone(sampler).fit_resample(images, NAMES[CODES])[0])


def test_a_frozen_generator_is_used_as_it_is() -> None:
    images = np.random.default_rng(0).integers(0, 99, (CODES.size, 3)).astype(np.uint8)
    fitted = MeanNoise(scale=0.0).fit(np.full((5, 3), 200, np.uint8), np.arange(5))
    sampler = FillSampler(generator=FrozenEstimator(fitted), random_state=0)
    X, _ = sampler.fit_resample(images, CODES)
    assert (X[sampler.is_synthetic_] == 200).all()


class Fixed(BaseEstimator):
    """Returns what it was given."""

    def __init__(self, made: Any = None) -> None:
        self.made = made

    def fit(self, images: Any, labels: Any) -> Fixed:
        return self

    def sample(self, labels: Any, *, random_state: int) -> Any:
        return self.made(len(labels)) if callable(self.made) else self.made


def test_generated_frames_and_sparse_rows() -> None:
    y = [0, 0, 0, 1]
    frame = pd.DataFrame({"path": list("abcd")})
    sampler = FillSampler(generator=Fixed(lambda n: pd.DataFrame({"path": [f"new{i}" for i in range(n)]})))
    X, labels = sampler.fit_resample(frame, y)
    assert X["path"].tolist() == ["a", "b", "c", "d", "new0", "new1"]
    assert labels == [0, 0, 0, 1, 1, 1]
    sparse = scipy.sparse.csr_matrix(np.eye(4, dtype=np.float32))
    X, _ = FillSampler(generator=Fixed(lambda n: scipy.sparse.csr_matrix(np.ones((n, 4))))).fit_resample(sparse, y)
    assert (X.shape, X.dtype, X.format) == ((6, 4), np.float32, "csr")


def test_nothing_to_add_asks_the_generator_for_nothing() -> None:
    sampler = FillSampler(generator=Fixed(None))
    X, y = sampler.fit_resample(ROWS[:4], [0, 1, 0, 1])
    assert (len(X), len(y), sampler.n_added_) == (4, 4, {})
    assert not sampler.is_synthetic_.any()


@pytest.mark.parametrize(
    ("rows", "made", "message"),
    [
        (np.zeros((4, 3, 3), np.uint8), lambda n: np.zeros((n, 3, 2), np.uint8), r"shape \(2, 3, 3\) and dtype uint8"),
        (
            np.zeros((4, 3, 3), np.uint8),
            lambda n: np.zeros((n - 1, 3, 3), np.uint8),
            r"got ndarray of shape \(1, 3, 3\)",
        ),
        (np.zeros((4, 3, 3), np.uint8), lambda n: np.zeros((n, 3, 3)), "and float64; let sample"),
        (np.zeros((4, 1)), lambda n: None, "expected an array of shape"),
        (
            pd.DataFrame({"path": list("abcd")}),
            lambda n: np.zeros((n, 1)),
            r"a frame of 2 rows with the columns \['path'\]",
        ),
        (scipy.sparse.eye(4, format="csr"), lambda n: np.zeros((n, 4)), r"a sparse matrix of shape \(2, 4\)"),
    ],
)
def test_a_generator_that_returns_something_else_is_refused(rows: Any, made: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FillSampler(generator=Fixed(made)).fit_resample(rows, [0, 0, 0, 1])


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


@pytest.mark.parametrize("sampler", [InverseFrequencySampler(random_state=0), FillSampler(random_state=0)], ids=str)
def test_images_are_copied_once(sampler: AnyRowsSampler) -> None:
    images = np.zeros((2000, 64, 64), np.uint8)
    y = np.repeat([0, 1], [1500, 500])
    tracemalloc.start()
    X, _ = sampler.fit_resample(images, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes + 17 * 2**20  # of which 16 MiB are freed before a draw
