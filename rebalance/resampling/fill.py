"""Fill-up: rows are added to the small classes, repeated or generated; none is taken away."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import scipy.sparse
from imblearn.over_sampling.base import BaseOverSampler
from sklearn.base import clone
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import HasMethods

from rebalance.counts import IntArray
from rebalance.draws import Members, random_words
from rebalance.errors import InputError
from rebalance.permutations import SMALL
from rebalance.resampling.base import AnyRowsSampler, Array, seed_from


class FillSampler(AnyRowsSampler, BaseOverSampler):  # type: ignore[misc]  # imbalanced-learn has no types
    """Adds rows to the small classes, after those of the input: repeated rows, or made ones.

    Repeated rows are even: of a class, no row comes once more before all others came as often. A generator is an
    estimator with `fit(images, labels)` and `sample(labels_to_make, *, random_state) -> images`: it is fitted on the
    input, then asked for one image, of the input's kind and shape, for each label. It is cloned unfitted; wrap a
    fitted one in `sklearn.frozen.FrozenEstimator` to use it as it is.

    Args:
        sampling_strategy: As in imbalanced-learn's over-samplers: "auto" (all classes up to the largest), "minority",
            "not minority", "not majority", "all", the ratio of two classes, {label: rows after filling}, or a
            function of y that returns such a dict.
        generator: What makes the added rows; None repeats rows. It is cloned, and seeded where its `random_state` is
            None.
        random_state: An int, a `RandomState` or None.

    Attributes:
        sampling_strategy_: Rows to add for each label.
        n_added_: Rows added, by label, for the classes that got any.
        is_synthetic_: Whether a row of the output was made by the generator.
        sample_indices_: Row of the input behind each row of the output; only without a generator.
        generator_: The fitted generator; None without, and where no row is added.

    Raises:
        InputError: A number of rows that is not whole, or a generator that returned something else than it was asked
            for.

    Examples:
        >>> sampler = FillSampler(random_state=0)
        >>> X, y = sampler.fit_resample([[0], [1], [2], [3]], ["cat", "cat", "cat", "owl"])
        >>> X, sampler.n_added_
        ([[0], [1], [2], [3], [3], [3]], {'owl': 2})
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseOverSampler._parameter_constraints,
        "generator": [HasMethods(["fit", "sample"]), None],
    }

    def __init__(self, *, sampling_strategy: Any = "auto", generator: Any = None, random_state: Any = None) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.generator = generator
        self.random_state = random_state

    def _resample(self, X: Any, y: Array, classes: Array, codes: IntArray) -> tuple[Any, Array]:
        labels = classes.tolist()
        wanted_rows = [self.sampling_strategy_.get(label, 0) for label in labels]
        for label, n, present in zip(labels, wanted_rows, np.bincount(codes).tolist(), strict=True):
            if not float(n).is_integer():
                raise InputError(
                    "whole numbers of rows in sampling_strategy", f"{n + present} of {label!r}", "round it"
                )
        added = np.array(wanted_rows, dtype=np.int64)
        self.n_added_ = {label: int(n) for label, n in zip(labels, added, strict=True) if n}
        self.generator_ = None
        seed = seed_from(self.random_state)
        total = int(added.sum())
        self.is_synthetic_ = np.zeros(y.size + total, dtype=bool)
        if self.generator is None:
            self.sample_indices_ = np.concatenate([np.arange(y.size), _repeats(codes, added, seed)])
            return _safe_indexing(X, self.sample_indices_), y[self.sample_indices_]
        self.__dict__.pop("sample_indices_", None)  # of an earlier fit without a generator
        wanted = np.repeat(classes, added)
        if total:
            self.generator_ = clone(self.generator)
            unseeded = [name for name, value in self.generator_.get_params().items() if _is_unseeded(name, value)]
            self.generator_.set_params(**dict.fromkeys(unseeded, seed))
            self.generator_.fit(X, y)
            X = _joined(X, self.generator_.sample(wanted, random_state=seed), total)
            self.is_synthetic_[y.size :] = True
        return X, np.concatenate([y, wanted])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.sampler_tags.sample_indices = self.generator is None
        return tags


def _is_unseeded(name: str, value: Any) -> bool:
    return value is None and (name == "random_state" or name.endswith("__random_state"))


def _repeats(codes: IntArray, added: IntArray, seed: int) -> IntArray:
    """`added[c]` rows of each class, going on where a first pass over the class ended."""
    members = Members.of(codes, added.size)
    classes = np.flatnonzero(added)
    classes = classes[np.argsort(members.counts[classes] > SMALL, kind="stable")]
    keys = random_words((seed,), 0, added.size)
    rows = members.drawn(classes, members.counts[classes], added[classes], keys[classes])
    return rows.astype(np.int64)


def _joined(X: Any, made: Any, n: int) -> Any:
    """X and the made rows below it, in one copy of each."""
    if hasattr(X, "iloc"):
        import pandas as pd

        if not isinstance(made, pd.DataFrame) or list(made.columns) != list(X.columns) or len(made) != n:
            raise _unlike(f"a frame of {n} rows with the columns {list(X.columns)}", made)
        return pd.concat([X, made], ignore_index=True)
    if scipy.sparse.issparse(X):
        if not scipy.sparse.issparse(made) or made.shape != (n, X.shape[1]):
            raise _unlike(f"a sparse matrix of shape {(n, X.shape[1])}", made)
        return scipy.sparse.vstack([X, made], format=X.format, dtype=X.dtype)
    made = np.asarray(made)
    if made.shape != (n, *X.shape[1:]) or not np.can_cast(made.dtype, X.dtype, "same_kind"):
        raise _unlike(f"an array of shape {(n, *X.shape[1:])} and dtype {X.dtype}", made)
    out = np.empty((len(X) + n, *X.shape[1:]), dtype=X.dtype)
    out[: len(X)], out[len(X) :] = X, made
    return out


def _unlike(expected: str, made: Any) -> InputError:
    shape, dtype = getattr(made, "shape", None), getattr(made, "dtype", None)
    got = type(made).__name__ + (f" of shape {shape}" if shape is not None else "") + (f" and {dtype}" if dtype else "")
    return InputError(f"{expected} from the generator", got, "let sample(labels) return one row a label, like X")
