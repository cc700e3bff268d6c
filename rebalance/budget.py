"""Counts → images to add per class: the third use of balance, beside sampler and loss.

fill-to-head      m_c = n_max - n_c
fill-to-median    m_c = median(n) - n_c, at least 0
ratio:K           m_c = K · n_c, at most n_max - n_c
fixed:N           m_c = N, at most n_max - n_c
effective:RHO     E(n_c + κ m_c) = ρ E(n_max), with E(n) = (1 - β^n) / (1 - β) and κ the worth of one image
explicit          m_c by class name
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from rebalance.counts import FloatArray, IntArray, check_counts, effective_numbers, resolve_cb_beta
from rebalance.errors import InputError, nearest

BUDGET_RULES = ("fill-to-head", "fill-to-median", "ratio:K", "fixed:N", "effective:RHO", "explicit")


def images_to_add(
    counts: npt.ArrayLike,
    rule: str = "fill-to-head",
    *,
    explicit: Mapping[str, int] | None = None,
    classes: Sequence[str] | None = None,
    kappa: float = 1.0,
    cb_beta: float | Literal["auto"] = "auto",
    max_per_class: int | None = None,
    max_ratio: float | None = None,
    max_images: int | None = None,
) -> IntArray:
    """Images to synthesise for each class, shape (C,).

    Args:
        counts: Real training images of each class.
        rule: One of `BUDGET_RULES`, with a number for K, N or RHO.
        explicit: Images by class name, for rule "explicit"; a class that is not named gets none.
        classes: Class names, for `explicit`.
        kappa: Worth of one synthetic image beside a real one, for "effective:RHO".
        cb_beta: β of the effective number, for "effective:RHO".
        max_per_class: Upper bound for each class.
        max_ratio: Upper bound for each class as a multiple of its real images.
        max_images: Upper bound of the sum: every class is scaled down alike.

    Raises:
        InputError: Unknown rule, a number out of range, or an unknown class name.

    Examples:
        >>> images_to_add([10, 4, 1]).tolist(), images_to_add([10, 4, 1], "ratio:2").tolist()
        ([0, 6, 9], [0, 6, 2])
    """
    bounds = {"max_per_class": max_per_class, "max_ratio": max_ratio, "max_images": max_images}
    for name, bound in bounds.items():
        if bound is not None and not 0 < bound < np.inf:
            raise InputError(f"{name} above 0", repr(bound), "0 would make no image at all; leave it out for no bound")
    n = check_counts(counts, classes)
    gap = n.max() - n
    kind, _, argument = rule.partition(":")
    if rule == "fill-to-head":
        wanted = gap
    elif rule == "fill-to-median":
        wanted = np.maximum(np.median(n) - n, 0)
    elif kind == "ratio":
        wanted = np.minimum(_number(rule, argument, 0, np.inf) * n, gap)
    elif kind == "fixed":
        wanted = np.minimum(_whole(rule, argument), gap)
    elif kind == "effective":
        wanted = np.minimum(_effective(n, _number(rule, argument, 0, 1), kappa, cb_beta), gap)
    elif rule == "explicit":
        wanted = _explicit(explicit, classes)
    else:
        raise InputError("a budget rule", repr(rule), nearest(rule, BUDGET_RULES))
    if max_ratio is not None:
        wanted = np.minimum(wanted, max_ratio * n)
    if max_per_class is not None:
        wanted = np.minimum(wanted, max_per_class)
    budget: IntArray = np.rint(wanted).astype(np.int64)
    return budget if max_images is None else _scale_down(budget, max_images)


def _effective(n: FloatArray, rho: float, kappa: float, cb_beta: float | Literal["auto"]) -> FloatArray:
    """The m that solves E(n + κ m) = ρ E(n_max), at least 0."""
    if not 0 < kappa <= 1:
        raise InputError("kappa in (0, 1]", repr(kappa), "use 1 where a synthetic image is worth a real one")
    beta = resolve_cb_beta(cb_beta, n)
    if beta == 0.0:
        return np.zeros_like(n)
    target = rho * effective_numbers(n.max(), beta)
    needed = np.log1p(-(1.0 - beta) * target) / np.log1p(beta - 1.0)
    return np.asarray(np.maximum((needed - n) / kappa, 0.0))


def _explicit(explicit: Mapping[str, int] | None, classes: Sequence[str] | None) -> FloatArray:
    if not explicit or classes is None:
        raise InputError("a count by class name", "none", "name at least one class and how many images it gets")
    for name, count in explicit.items():
        if name not in classes:
            raise InputError("a count for a known class", repr(name), nearest(name, classes))
        if count < 0:
            raise InputError("counts >= 0", f"{count} for {name!r}", "leave the class out, or give it a count")
    return np.array([explicit.get(name, 0) for name in classes], dtype=np.float64)


def _scale_down(budget: IntArray, max_images: int) -> IntArray:
    """`budget` scaled to a sum of at most `max_images`; the largest remainders keep their image."""
    total = int(budget.sum())
    if total <= max_images:
        return budget
    exact = budget * (max_images / total)
    kept: IntArray = np.floor(exact).astype(np.int64)
    order = np.argsort(kept - exact, kind="stable")
    kept[order[: max_images - int(kept.sum())]] += 1
    return kept


def _whole(rule: str, text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise InputError("a whole number >= 1 after the colon", repr(rule), "write for example fixed:500")
    return int(text)


def _number(rule: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not low < value <= high:
        bound = f"in ({low:g}, {high:g}]" if np.isfinite(high) else f"> {low:g}"
        raise InputError(f"a number {bound} after the colon", repr(rule), "write for example ratio:2 or effective:0.5")
    return value
