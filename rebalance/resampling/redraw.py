"""Redraw: as many rows as there were, drawn class first and member second by a weight rule.

share_c = (1 - f) · n_c / n + f · n_c w_c / Σ n w, with w of `rebalance.weights` and f the factor of progress.
"""

from __future__ import annotations

import numbers
from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions

from rebalance.counts import FloatArray, IntArray
from rebalance.draws import Draws, Members, mixed_shares, quotas, random_stream
from rebalance.resampling.base import AnyRowsSampler, Array, seed_from
from rebalance.weights import class_weights, draw_shares

_COMMON: dict[str, list[Any]] = {
    "n_samples": [Interval(numbers.Integral, 1, None, closed="left"), None],
    "random_state": ["random_state"],
}
_EXPONENT: list[Any] = [Interval(numbers.Real, 0, None, closed="left")]
_SHARE: list[Any] = [Interval(numbers.Real, 0, 1, closed="both")]


class _Redraw(AnyRowsSampler):
    """What the redraw samplers share: all but the shares of the classes."""

    _sampling_type = "bypass"
    n_samples: int | None
    random_state: Any

    @abstractmethod
    def _shares(self, counts: IntArray) -> FloatArray:
        """Share of each class among the draws, shape (C,)."""

    def _resample(self, X: Any, y: Array, classes: Array, codes: IntArray) -> tuple[Any, Array]:
        members = Members.of(codes, classes.size)
        n = y.size if self.n_samples is None else int(self.n_samples)
        key = (seed_from(self.random_state),)
        quota = quotas(self._shares(members.counts) * n, random_stream(key, 0).random())
        self.sample_indices_ = np.concatenate(list(Draws(members, quota, key).chunks()))
        return _safe_indexing(X, self.sample_indices_), y[self.sample_indices_]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.sampler_tags.sample_indices = True
        return tags


class InverseFrequencySampler(_Redraw):
    """Draws class c with a share that goes with n_c · (1 / n_c)^exponent.

    Args:
        exponent: 0 draws every row alike, 1 every class alike.
        n_samples: Rows of the output; by default those of the input.
        random_state: An int, a `RandomState` or None.

    Attributes:
        sample_indices_: Row of the input behind each row of the output. No row of a class comes a second time before
            all of them came once.

    Examples:
        >>> X, y = [[0], [1], [2], [3]], ["cat", "cat", "cat", "owl"]
        >>> sorted(InverseFrequencySampler(random_state=0).fit_resample(X, y)[1])
        ['cat', 'cat', 'owl', 'owl']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"exponent": _EXPONENT, **_COMMON}

    def __init__(self, *, exponent: float = 1.0, n_samples: int | None = None, random_state: Any = None) -> None:
        super().__init__()
        self.exponent = exponent
        self.n_samples = n_samples
        self.random_state = random_state

    def _shares(self, counts: IntArray) -> FloatArray:
        return draw_shares(counts, class_weights(counts, "inverse", strength=self.exponent))


class SquareRootSampler(_Redraw):
    """Draws class c with a share that goes with sqrt(n_c): halfway between rows alike and classes alike.

    Args:
        n_samples: As in `InverseFrequencySampler`.
        random_state: As in `InverseFrequencySampler`.

    Attributes:
        sample_indices_: As in `InverseFrequencySampler`.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = _COMMON

    def __init__(self, *, n_samples: int | None = None, random_state: Any = None) -> None:
        super().__init__()
        self.n_samples = n_samples
        self.random_state = random_state

    def _shares(self, counts: IntArray) -> FloatArray:
        return draw_shares(counts, class_weights(counts, "sqrt-inverse"))


class EffectiveNumberSampler(_Redraw):
    """Draws class c with a share that goes with n_c · (1 / E_c)^exponent, E_c = (1 - β^n_c) / (1 - β).

    Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019.

    Args:
        cb_beta: β in [0, 1); "auto" is 1 - 1 / n_max.
        exponent: As in `InverseFrequencySampler`.
        n_samples: As in `InverseFrequencySampler`.
        random_state: As in `InverseFrequencySampler`.

    Attributes:
        sample_indices_: As in `InverseFrequencySampler`.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "cb_beta": [Interval(numbers.Real, 0, 1, closed="left"), StrOptions({"auto"})],
        "exponent": _EXPONENT,
        **_COMMON,
    }

    def __init__(
        self,
        *,
        cb_beta: float | Literal["auto"] = "auto",
        exponent: float = 1.0,
        n_samples: int | None = None,
        random_state: Any = None,
    ) -> None:
        super().__init__()
        self.cb_beta = cb_beta
        self.exponent = exponent
        self.n_samples = n_samples
        self.random_state = random_state

    def _shares(self, counts: IntArray) -> FloatArray:
        weights = class_weights(counts, "effective-number", strength=self.exponent, cb_beta=self.cb_beta)
        return draw_shares(counts, weights)


class ProgressiveSampler(_Redraw):
    """Draws by (1 - progress) · rows alike + progress · `InverseFrequencySampler`.

    Source: Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020, eq. 3.

    Args:
        progress: Share of training done, in [0, 1]; one fit a training phase.
        exponent: As in `InverseFrequencySampler`.
        n_samples: As in `InverseFrequencySampler`.
        random_state: As in `InverseFrequencySampler`.

    Attributes:
        sample_indices_: As in `InverseFrequencySampler`.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"progress": _SHARE, "exponent": _EXPONENT, **_COMMON}

    def __init__(
        self, *, progress: float = 1.0, exponent: float = 1.0, n_samples: int | None = None, random_state: Any = None
    ) -> None:
        super().__init__()
        self.progress = progress
        self.exponent = exponent
        self.n_samples = n_samples
        self.random_state = random_state

    def _shares(self, counts: IntArray) -> FloatArray:
        rule = draw_shares(counts, class_weights(counts, "inverse", strength=self.exponent))
        return mixed_shares(counts, rule, self.progress)
