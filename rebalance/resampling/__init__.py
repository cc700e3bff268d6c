"""Samplers in scikit-learn's and imbalanced-learn's conventions: `fit_resample(X, y)`."""

from rebalance.resampling.deferred import DeferredSampler
from rebalance.resampling.fill import FillSampler
from rebalance.resampling.redraw import (
    EffectiveNumberSampler,
    InverseFrequencySampler,
    ProgressiveSampler,
    SquareRootSampler,
)

__all__ = [
    "DeferredSampler",
    "EffectiveNumberSampler",
    "FillSampler",
    "InverseFrequencySampler",
    "ProgressiveSampler",
    "SquareRootSampler",
]
