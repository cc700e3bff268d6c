"""scikit-learn's and imbalanced-learn's public check suites, without exemptions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from imblearn.utils.estimator_checks import estimator_checks_generator as imblearn_checks
from sklearn.base import BaseEstimator, clone
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_param_validation,
    estimator_checks_generator,
)

from rebalance.resampling import (
    DeferredSampler,
    EffectiveNumberSampler,
    FillSampler,
    InverseFrequencySampler,
    ProgressiveSampler,
    SquareRootSampler,
)

SAMPLERS = [
    InverseFrequencySampler(random_state=0),
    InverseFrequencySampler(exponent=0.5, n_samples=50, random_state=0),
    EffectiveNumberSampler(cb_beta=0.99, random_state=0),
    SquareRootSampler(random_state=0),
    ProgressiveSampler(progress=0.5, random_state=0),
    DeferredSampler(random_state=0),
    DeferredSampler(progress=0.5, random_state=0),
    DeferredSampler(sampler=FillSampler(), random_state=0),
    FillSampler(random_state=0),
]


def cases() -> list[Any]:
    checks: list[tuple[BaseEstimator, Callable[[BaseEstimator], None]]] = []
    for sampler in SAMPLERS:
        checks += estimator_checks_generator(sampler)
        checks += imblearn_checks(sampler)
        for loose in (check_param_validation, check_dataframe_column_names_consistency):
            checks.append((sampler, partial(loose, type(sampler).__name__)))
    return [
        pytest.param(sampler, check, id=f"{number}-{type(sampler).__name__}-{check.func.__name__}")  # type: ignore[attr-defined]
        for number, (sampler, check) in enumerate(checks)
    ]


@pytest.mark.parametrize(("sampler", "check"), cases())
def test_public_check_passes(sampler: BaseEstimator, check: Callable[[BaseEstimator], None]) -> None:
    check(clone(sampler))
