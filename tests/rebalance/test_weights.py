from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from rebalance.errors import InputError
from rebalance.weights import RULES, class_weights, draw_shares

COUNTS = [500, 60, 7, 1]
NAMES = ["bear", "cat", "dog", "elk"]
CUSTOM = {"elk": 4.0, "dog": 3.0, "cat": 1.0, "bear": 0.5}


def reference(rule: str, strength: float) -> list[float]:
    base = {
        "none": lambda n: 1.0,
        "inverse": lambda n: 1 / n,
        "sqrt-inverse": lambda n: n**-0.5,
        "effective-number": lambda n: 0.1 / (1 - 0.9**n),
        "custom": lambda n: CUSTOM[NAMES[COUNTS.index(n)]],
    }[rule]
    return [base(n) ** strength for n in COUNTS]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0])
def test_rules_and_normalisations(rule: str, strength: float) -> None:
    options = {"strength": strength, "cb_beta": 0.9, "custom": CUSTOM, "classes": NAMES}
    raw = reference(rule, strength)
    of_classes = class_weights(COUNTS, rule, **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(of_classes, [w * 4 / sum(raw) for w in raw], rtol=1e-12)
    of_max = class_weights(COUNTS, rule, normalization="max", **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(of_max, [w / max(raw) for w in raw], rtol=1e-12)
    of_samples = class_weights(COUNTS, rule, normalization="samples", **options)  # type: ignore[arg-type]
    mean = sum(n * w for n, w in zip(COUNTS, raw, strict=True)) / sum(COUNTS)
    np.testing.assert_allclose(of_samples, [w / mean for w in raw], rtol=1e-12)


def test_samples_normalisation_is_scikit_learns_balanced() -> None:
    y = np.repeat(np.arange(4), COUNTS)
    theirs = compute_class_weight("balanced", classes=np.arange(4), y=y)
    np.testing.assert_allclose(class_weights(COUNTS, normalization="samples"), theirs, rtol=1e-12)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40), st.sampled_from(RULES[:4]), st.floats(0, 1000))
def test_weights_are_finite_positive_in_sum_and_larger_for_rarer_classes(
    counts: list[int], rule: str, strength: float
) -> None:
    weight = class_weights(counts, rule, strength=strength)
    assert np.isfinite(weight).all()
    assert weight.sum() == pytest.approx(len(counts))
    assert (np.diff(weight[np.argsort(counts)]) <= 1e-12).all()


def test_weights_follow_a_permutation_of_the_classes() -> None:
    order = [2, 0, 3, 1]
    permuted = class_weights(np.array(COUNTS)[order], "effective-number")
    np.testing.assert_allclose(permuted, class_weights(COUNTS, "effective-number")[order], rtol=1e-14)


def test_one_class_weighs_one() -> None:
    for rule in RULES[:4]:
        np.testing.assert_array_equal(class_weights([42], rule), [1.0])


def test_inverse_weights_draw_every_class_alike() -> None:
    np.testing.assert_allclose(draw_shares(COUNTS, class_weights(COUNTS)), [0.25] * 4, rtol=1e-14)
    np.testing.assert_allclose(draw_shares(COUNTS, np.ones(4)), np.array(COUNTS) / 568, rtol=1e-14)


def test_weights_of_a_series_are_in_the_order_of_the_classes() -> None:
    counts = pd.Series(["owl", "cat", "cat", "cat", "dog", "dog"]).value_counts()
    weights = class_weights(counts, "inverse", classes=["owl", "dog", "cat"])
    np.testing.assert_array_equal(weights, class_weights([1, 2, 3], "inverse"))
    by_id = pd.Series([3, 2, 1], [2, 1, 0])
    np.testing.assert_allclose(draw_shares(by_id, weights), draw_shares([1, 2, 3], weights))


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        (COUNTS, {"rule": "invers"}, "a weight rule out of none, inverse.*; got 'invers'; did you mean 'inverse'"),
        (COUNTS, {"strength": -1}, "expected a finite strength >= 0; got -1"),
        (COUNTS, {"strength": float("nan")}, "expected a finite strength >= 0; got nan"),
        (COUNTS, {"strength": float("inf")}, "expected a finite strength >= 0; got inf"),
        (COUNTS, {"normalization": "mean"}, "normalization out of classes, samples, max; got 'mean'"),
        (COUNTS, {"rule": "effective-number", "cb_beta": 1.0}, r"cb_beta in \[0, 1\)"),
        ([5, 0], {"classes": ["owl", "newt"]}, "got 0 images of 'newt'"),
        (COUNTS, {"rule": "custom"}, "a weight for every class by its name; got none"),
        (COUNTS, {"rule": "custom", "custom": CUSTOM}, "pass custom={name: weight} and classes"),
        (COUNTS, {"rule": "custom", "custom": CUSTOM, "classes": NAMES[:3]}, "expected 4 class names; got 3"),
        (
            COUNTS,
            {"rule": "custom", "custom": CUSTOM | {"bea": 1.0}, "classes": NAMES},
            "known classes; got 'bea'; did you mean 'bear'",
        ),
        (COUNTS, {"rule": "custom", "custom": {"bear": 1.0}, "classes": NAMES}, "got none for 'cat'; add 'cat'"),
        (
            COUNTS,
            {"rule": "custom", "custom": CUSTOM | {"dog": 0.0}, "classes": NAMES},
            "positive finite weights; got 0.0 for 'dog'",
        ),
        (COUNTS, {"rule": "custom", "custom": CUSTOM | {"dog": float("inf")}, "classes": NAMES}, "got inf for 'dog'"),
    ],
)
def test_bad_arguments_are_refused(counts: list[int], options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        class_weights(counts, **options)
