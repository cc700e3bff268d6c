"""Classes filled up by a generator."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from imblearn.pipeline import make_pipeline
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from rebalance.errors import InputError
from rebalance.resampling import (
    FillSampler,
)

CODES = np.random.default_rng(1).permutation(np.repeat(np.arange(5), [300, 70, 20, 3, 1]))
NAMES = np.array(["bear", "cat", "dog", "elk", "ñandú"])
ROWS = np.arange(CODES.size).reshape(-1, 1)


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


def test_the_rows_of_an_earlier_fit_are_forgotten() -> None:
    sampler = FillSampler().fit(ROWS[:4], [0, 0, 0, 1])
    sampler.fit_resample(ROWS[:4], [0, 0, 0, 1])
    assert len(sampler.sample_indices_) == 6
    sampler.set_params(generator=Fixed(None)).fit_resample(ROWS[:4], [0, 1, 0, 1])
    assert not hasattr(sampler, "sample_indices_")


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
