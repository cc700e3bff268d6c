"""Counts → class weights: rule, strength and normalisation are three separate choices.

    w_c ∝ (1 / n_c)^γ                inverse          γ = strength, 0 = all equal
    w_c ∝ (1 / sqrt(n_c))^γ          sqrt-inverse
    w_c ∝ (1 / E_c)^γ                effective-number E_c = (1 - β^n_c) / (1 - β), Cui et al. 2019, eq. 4
    w_c ∝ (custom_c)^γ               custom, by class name

Everything is float64: float32 loses the digits that the losses' reference values are stated to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from rebalance.counts import FloatArray, check_counts, effective_numbers, in_class_order
from rebalance.errors import InputError, nearest

Rule = Literal["none", "inverse", "sqrt-inverse", "effective-number", "custom"]
RULES: tuple[Rule, ...] = ("none", "inverse", "sqrt-inverse", "effective-number", "custom")
Normalization = Literal["classes", "samples", "max"]


def class_weights(
    counts: npt.ArrayLike,
    rule: str = "inverse",
    *,
    strength: float = 1.0,
    cb_beta: float | Literal["auto"] = "auto",
    normalization: Normalization = "classes",
    custom: Mapping[str, float] | None = None,
    classes: Sequence[str] | None = None,
) -> FloatArray:
    """Class weights, float64, shape (C,).

    The losses here take them as they are; torch's own need `torch.tensor(weights, dtype=torch.float32)`.

    Args:
        counts: Training images of each class, shape (C,); a pandas Series by its index, class ids or names.
        rule: One of `RULES`.
        strength: Exponent of the rule: 0 gives equal weights, 1 the full rule. Samplers call it `exponent`, the command
            line `--sampler-strength` and `--loss-strength`.
        cb_beta: β of the effective number; 0.9999 in the papers' recipes, "auto" = 1 - 1 / n_max.
        normalization: "classes": the C weights sum to C (the papers' text and code). "samples": the mean weight
            over the training images is 1 (scikit-learn's "balanced"). "max": the largest weight is 1, which with
            `inverse` gives (n_min / n_c)^γ.
        custom: Weight by class name, for rule "custom"; every class must be named.
        classes: Class names, for `custom` and for error messages.

    Raises:
        InputError: Unknown rule, negative strength, a class without images, or custom weights that do not name
            exactly the classes or are not positive.

    Examples:
        >>> class_weights([90, 9, 1], "inverse", normalization="max")
        array([0.01111111, 0.11111111, 1.        ])
    """
    n = check_counts(counts, classes)
    if rule not in RULES:
        raise InputError(f"a weight rule out of {', '.join(RULES)}", repr(rule), nearest(rule, RULES))
    if not 0 <= strength < np.inf:
        raise InputError("a finite strength >= 0", repr(strength), "use 0 for no re-balancing and 1 for the full rule")
    base = _base_weights(n, rule, cb_beta, custom, classes)
    base = (base / base.max()) ** strength  # the largest is 1, so that no strength overflows
    if normalization == "classes":
        return np.asarray(base * (n.size / base.sum()))
    if normalization == "samples":
        return np.asarray(base * (n.sum() / (n @ base)))
    if normalization == "max":
        return np.asarray(base / base.max())
    raise InputError("normalization out of classes, samples, max", repr(normalization), "name one of the three")


def draw_shares(counts: npt.ArrayLike, weights: npt.ArrayLike) -> FloatArray:
    """Share of each class among the draws of a sampler that weighs every image by its class weight, shape (C,)."""
    n, w = (np.asarray(in_class_order(values), dtype=np.float64) for values in (counts, weights))
    return np.asarray(n * w / (n * w).sum())


def _base_weights(
    n: FloatArray,
    rule: str,
    cb_beta: float | Literal["auto"],
    custom: Mapping[str, float] | None,
    classes: Sequence[str] | None,
) -> FloatArray:
    if rule == "none":
        return np.ones_like(n)
    if rule == "inverse":
        return 1.0 / n
    if rule == "sqrt-inverse":
        return 1.0 / np.sqrt(n)
    if rule == "effective-number":
        return 1.0 / effective_numbers(n, cb_beta)
    return _custom_weights(n.size, custom, classes)


def _custom_weights(n_classes: int, custom: Mapping[str, float] | None, classes: Sequence[str] | None) -> FloatArray:
    if not custom or classes is None:
        raise InputError("a weight for every class by its name", "none", "pass custom={name: weight} and classes")
    if len(classes) != n_classes:
        raise InputError(f"{n_classes} class names", str(len(classes)), "pass one name for every count")
    unknown = [name for name in custom if name not in classes]
    if unknown:
        raise InputError("weights for known classes", repr(unknown[0]), nearest(unknown[0], classes))
    missing = [name for name in classes if name not in custom]
    if missing:
        raise InputError("a weight for every class", f"none for {missing[0]!r}", f"add {missing[0]!r} to the weights")
    weights = np.array([custom[name] for name in classes], dtype=np.float64)
    if not (weights > 0).all() or not np.isfinite(weights).all():
        wrong = classes[int(np.flatnonzero(~((weights > 0) & np.isfinite(weights)))[0])]
        raise InputError("positive finite weights", f"{custom[wrong]!r} for {wrong!r}", "give the class a weight > 0")
    return weights
