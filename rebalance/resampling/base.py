"""What the samplers here have in common: rows of any kind, labels of any kind, and every label looked at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
from imblearn.base import BaseSampler
from imblearn.utils import check_sampling_strategy, check_target_type
from imblearn.utils._validation import ArraysTransformer
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, validate_data

from rebalance.counts import IntArray
from rebalance.missing import check_labelled

Array = npt.NDArray[Any]


def check_rows(estimator: BaseEstimator, X: Any, y: Any) -> tuple[Any, Array, bool]:
    """X and y as imbalanced-learn's samplers check them, but for what X holds: nothing of it is converted.

    Returns:
        X, y of shape (N,), and whether y came as one column a class.
    """
    y, one_hot = check_target_type(y, indicate_one_vs_all=True)
    return _rows(estimator, X, y), np.asarray(y), one_hot


class AnyRowsSampler(BaseSampler, ABC):  # type: ignore[misc]  # imbalanced-learn has no types
    """A sampler of frames, sparse matrices, and arrays of any type and number of dimensions.

    imbalanced-learn sorts the labels four to six times on its way; with whole numbers or strings, one a row, the way
    taken here needs one look at them, and ends in the same result.
    """

    _check_X_y = check_rows  # noqa: N815  # imbalanced-learn's hook

    def fit_resample(self, X: Any, y: Any, **params: Any) -> tuple[Any, Any]:
        """Resamples the rows.

        Args:
            X: Rows: an array with any number of dimensions (images as they are), a frame, or a sparse matrix.
            y: Their labels, or one column a class.
            params: None are taken.

        Returns:
            The rows and the labels, in the containers and types they came in.

        Raises:
            InputError: A row without a label.
            ValueError: What imbalanced-learn's samplers refuse.
        """
        labels = _plain_labels(y)
        if labels is None or params:
            _check_labelled(y)
            resampled: tuple[Any, Any] = super().fit_resample(X, y, **params)
            return resampled
        self._validate_params()
        containers = ArraysTransformer(X, y)
        X = _rows(self, X, labels)
        classes, codes = class_codes(labels)
        self.sampling_strategy_ = self._strategy(labels, classes, codes)
        restored: tuple[Any, Any] = containers.transform(*self._resample(X, labels, classes, codes))
        return restored

    @abstractmethod
    def _resample(self, X: Any, y: Array, classes: Array, codes: IntArray) -> tuple[Any, Array]:
        """The resampled X and y, from the distinct labels (C,) and each row's place among them (N,)."""

    def _fit_resample(self, X: Any, y: Array) -> tuple[Any, Array]:
        return self._resample(X, y, *class_codes(y))

    def _strategy(self, y: Array, classes: Array, codes: IntArray) -> Any:
        """`sampling_strategy_`: rows to add by label for over-samplers, the parameter itself for others."""
        strategy = self.sampling_strategy
        if not isinstance(strategy, (str, float)):
            return check_sampling_strategy(strategy, y, self._sampling_type)
        if self._sampling_type == "bypass":
            return check_sampling_strategy(strategy, classes, "bypass")
        by_code = check_sampling_strategy(strategy, codes, self._sampling_type)
        return type(by_code)((classes[code], n) for code, n in by_code.items())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        return tags


def class_codes(y: Array) -> tuple[Array, IntArray]:
    """The distinct labels, sorted (C,), and the place of each row's label among them (N,)."""
    if y.dtype.kind in "iu" and int(y.max()) - int(y.min()) <= 4 * y.size:
        low = y.min()
        places = (y - low).view(f"u{y.dtype.itemsize}").astype(np.int64)  # what overflows is right without its sign
        found = np.bincount(places) > 0
        return np.flatnonzero(found).astype(y.dtype) + low, (np.cumsum(found) - 1)[places]
    if y.dtype.kind in "UO":
        rows = y.tolist()
        labels = sorted(set(rows))
        place = {label: code for code, label in enumerate(labels)}
        return np.array(labels, dtype=y.dtype), np.fromiter(map(place.__getitem__, rows), dtype=np.int64, count=y.size)
    classes, codes = np.unique(y, return_inverse=True)
    return classes, codes.astype(np.int64)


def seed_from(random_state: Any) -> int:
    """A seed out of a `random_state` as scikit-learn understands it."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def _rows(estimator: BaseEstimator, X: Any, y: Array) -> Any:
    """X as it came, but lists as arrays and sparse matrices as CSR or CSC; sets `n_features_in_` and the like."""
    check_consistent_length(X, y)
    if isinstance(X, (list, tuple, np.ndarray)) and len(X) and all(isinstance(row, str | PathLike) for row in X):
        raise ValueError(  # scikit-learn's words, with what to do
            "Expected 2D array, got 1D array of names instead; Reshape your data: np.reshape(X, (-1, 1)) makes a column"
        )
    if hasattr(X, "iloc"):
        return validate_data(estimator, X=X, reset=True, skip_check_array=True)
    return validate_data(
        estimator, X=X, reset=True, accept_sparse=["csr", "csc"], dtype=None, ensure_all_finite=False, allow_nd=True
    )


def _check_labelled(y: Any) -> None:
    """Refuses a missing label; what has not one label a row is left to scikit-learn."""
    try:
        labels = np.asarray(y)
    except ValueError:  # ragged
        return
    if labels.ndim == 1:
        check_labelled(labels)


def _plain_labels(y: Any) -> Array | None:
    """The labels as an array of whole numbers or strings, one a row; None for anything else."""
    if not isinstance(y, (np.ndarray, list, tuple)) and not hasattr(y, "iloc"):
        return None
    try:
        labels = np.asarray(y)
    except ValueError:  # ragged
        return None
    if labels.ndim != 1 or labels.size == 0 or labels.dtype.kind not in "biuUO":
        return None
    if labels.dtype.kind == "O" and set(map(type, labels.tolist())) != {str}:
        return None
    return labels
