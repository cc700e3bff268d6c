"""scikit-learn's public check suite, without exemptions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_param_validation,
    estimator_checks_generator,
)

from pipelines import RebalancedImageClassifier

EXEMPT: dict[str, str] = {}
"""Check → reason; at most six."""
CLASSIFIER = RebalancedImageClassifier(updates=20, batch_size=32, device="cpu", random_state=0)


def cases() -> list[Any]:
    checks: list[tuple[BaseEstimator, Callable[[BaseEstimator], None]]] = list(
        estimator_checks_generator(CLASSIFIER, expected_failed_checks=EXEMPT)
    )
    loose = (check_param_validation, check_dataframe_column_names_consistency)
    checks += [(CLASSIFIER, partial(check, type(CLASSIFIER).__name__)) for check in loose]
    return [
        pytest.param(classifier, check, id=f"{number}-{check.func.__name__}")  # type: ignore[attr-defined]
        for number, (classifier, check) in enumerate(checks)
    ]


@pytest.mark.filterwarnings("ignore:every class has .* images:UserWarning")  # most checks fit balanced data
@pytest.mark.parametrize(("classifier", "check"), cases())
def test_public_check_passes(classifier: BaseEstimator, check: Callable[[BaseEstimator], None]) -> None:
    check(clone(classifier))
