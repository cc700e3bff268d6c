"""Deferred re-sampling: the rows as they are until `start`, another sampler's from then on."""

from __future__ import annotations

import numbers
from typing import Any, ClassVar

import numpy as np
from sklearn.base import clone
from sklearn.utils import get_tags
from sklearn.utils._param_validation import HasMethods, Interval

from rebalance.counts import IntArray
from rebalance.resampling.base import AnyRowsSampler, Array, seed_from
from rebalance.resampling.redraw import InverseFrequencySampler
from rebalance.schedules import Schedule


class DeferredSampler(AnyRowsSampler):
    """Leaves the rows alone while `progress` < `start`, then hands them to `sampler`.

    Source: deferred re-sampling (DRS), Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin
    Loss, NeurIPS 2019.

    Args:
        sampler: Any imbalanced-learn sampler; by default `InverseFrequencySampler()`. It is cloned, and seeded where
            its `random_state` is None.
        start: Share of training from which it acts.
        progress: Share of training done, in [0, 1]; one fit a training phase.
        random_state: An int, a `RandomState` or None.

    Attributes:
        sampler_: The fitted sampler; None before `start`.
        sample_indices_: Row of the input behind each row of the output, where `sampler` tells it.

    Examples:
        >>> X, y = [[0], [1], [2], [3]], [0, 0, 0, 1]
        >>> [sorted(DeferredSampler(progress=p, random_state=0).fit_resample(X, y)[1]) for p in (0.5, 0.8)]
        [[0, 0, 0, 1], [0, 0, 1, 1]]
    """

    _sampling_type = "bypass"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "sampler": [HasMethods("fit_resample"), None],
        "start": [Interval(numbers.Real, 0, 1, closed="both")],
        "progress": [Interval(numbers.Real, 0, 1, closed="both")],
        "random_state": ["random_state"],
    }

    def __init__(
        self, *, sampler: Any = None, start: float = 0.8, progress: float = 1.0, random_state: Any = None
    ) -> None:
        super().__init__()
        self.sampler = sampler
        self.start = start
        self.progress = progress
        self.random_state = random_state

    def _resample(self, X: Any, y: Array, classes: Array, codes: IntArray) -> tuple[Any, Array]:
        self.sampler_ = None
        self.__dict__.pop("sample_indices_", None)  # of an earlier fit with another sampler
        if not Schedule("deferred", self.start)(self.progress):
            if self._tells_rows():
                self.sample_indices_ = np.arange(y.size)
            return X, y
        self.sampler_ = InverseFrequencySampler() if self.sampler is None else clone(self.sampler)
        if self.sampler_.get_params().get("random_state", 0) is None:
            self.sampler_.set_params(random_state=seed_from(self.random_state))
        resampled: tuple[Any, Array] = self.sampler_.fit_resample(X, y)
        if self._tells_rows():
            self.sample_indices_ = self.sampler_.sample_indices_
        return resampled

    def _tells_rows(self) -> bool:
        return self.sampler is None or bool(get_tags(self.sampler).sampler_tags.sample_indices)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.sampler_tags.sample_indices = self._tells_rows()
        return tags
