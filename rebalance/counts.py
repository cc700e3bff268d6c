"""Labels → counts, and what the counts say: imbalance factor, Gini, effective numbers, many/medium/few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rebalance.errors import InputError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Group = Literal["many", "medium", "few"]
GROUPS: tuple[Group, ...] = ("many", "medium", "few")


def class_counts(targets: npt.ArrayLike, n_classes: int | None = None) -> IntArray:
    """Number of images of each class, shape (C,).

    Args:
        targets: Class ids, shape (N,).
        n_classes: C; by default the largest id plus one. Classes without an image count 0.

    Raises:
        InputError: A target is no whole number, negative, or not below `n_classes`.

    Examples:
        >>> class_counts([0, 0, 2])
        array([2, 0, 1])
    """
    ids = np.asarray(targets).ravel()
    if ids.size and ids.dtype.kind not in "iub":
        raise InputError("whole numbers as class ids", f"targets of type {ids.dtype}", "number the classes from 0")
    ids = ids.astype(np.int64, copy=False)
    if n_classes is None:
        n_classes = int(ids.max()) + 1 if ids.size else 0
    if ids.size and (ids.min() < 0 or ids.max() >= n_classes):
        wrong = int(ids.min()) if ids.min() < 0 else int(ids.max())
        raise InputError(f"class ids from 0 to {n_classes - 1}", str(wrong), "pass n_classes that covers every target")
    return np.bincount(ids, minlength=n_classes).astype(np.int64)


def in_class_order(values: npt.ArrayLike, classes: Sequence[str] | None = None) -> npt.ArrayLike:
    """`values`, one a class, as they are; a pandas Series by its index, not by the order of its rows.

    The index holds the names in `classes`, where given, or 0 … C - 1: `value_counts` sorts by frequency.

    Raises:
        InputError: A mapping, or a Series with another index.
    """
    _refuse_mapping(values)
    index: Any = getattr(values, "index", None)
    if not hasattr(values, "to_numpy") or not hasattr(index, "to_numpy"):
        return values
    keys = index.to_numpy().tolist()
    row = {key: i for i, key in enumerate(keys)}
    for names in (() if classes is None else tuple(classes), range(len(keys))):
        if len(names) == len(keys) and row.keys() == set(names):
            return np.asarray(values.to_numpy()[[row[name] for name in names]])
    raise InputError(
        f"a Series by class id, 0 to {len(keys) - 1}" + (", or by class name" if classes is not None else ""),
        f"the index {', '.join(map(repr, keys[:4]))}" + (", …" if len(keys) > 4 else ""),
        "pass for example counts.reindex(classes, fill_value=0).to_numpy(), with every class in its order",
    )


def _refuse_mapping(values: object) -> None:
    if isinstance(values, Mapping):
        raise InputError(
            "counts in the order of the class ids",
            f"a {type(values).__name__}",
            "pass for example [counts[name] for name in classes]",
        )


def check_counts(counts: npt.ArrayLike, classes: Sequence[str] | None = None) -> FloatArray:
    """`counts` as float64 (C,), refused where a weight, prior or margin would be undefined.

    Raises:
        InputError: No class, a class without an image, named where `classes` is given, or counts by other names.
    """
    array = np.asarray(in_class_order(counts, classes), dtype=np.float64).ravel()
    if array.size == 0:
        raise InputError("counts of at least one class", "no class", "pass the image count of every class")
    bad = np.flatnonzero(~(array > 0))
    if bad.size:
        first = int(bad[0])
        name = repr(classes[first]) if classes is not None else f"class {first}"
        raise InputError(
            "at least one image in every class",
            f"{array[first]:g} images of {name}",
            "remove the class or add an image of it",
        )
    return array


def imbalance_factor(counts: npt.ArrayLike) -> float:
    """n_max / n_min of counts (C,), over the classes that have images; 1 is balanced, NaN is no image at all."""
    _refuse_mapping(counts)
    present = np.asarray(counts, dtype=np.float64)
    present = present[present > 0]
    return float(present.max() / present.min()) if present.size else float("nan")


def gini(counts: npt.ArrayLike) -> float:
    """Gini coefficient of counts (C,): 0 is balanced, (C - 1) / C is all images in one class.

    Examples:
        >>> gini([5, 5, 5]), gini([0, 0, 9])
        (0.0, 0.6666666666666666)
    """
    _refuse_mapping(counts)
    ordered = np.sort(np.asarray(counts, dtype=np.float64))
    n, total = ordered.size, ordered.sum()
    if total == 0:
        return float("nan")
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))


def resolve_cb_beta(cb_beta: float | Literal["auto"], counts: npt.ArrayLike) -> float:
    """The β of the effective number: a number in [0, 1), or "auto" = 1 - 1 / n_max, which ties it to the data.

    Raises:
        InputError: β outside [0, 1), or "auto" without an image.
    """
    if isinstance(cb_beta, str):
        if cb_beta != "auto":
            raise InputError("cb_beta in [0, 1) or 'auto'", repr(cb_beta), "use a number such as 0.9999, or 'auto'")
        _refuse_mapping(counts)
        n_max = np.asarray(counts, dtype=np.float64).max(initial=0.0)
        if n_max < 1:
            raise InputError("a class with an image", "none", "pass the image count of every class")
        return float(1.0 - 1.0 / n_max)
    if not 0.0 <= cb_beta < 1.0:
        raise InputError("cb_beta in [0, 1) or 'auto'", repr(cb_beta), "use a number such as 0.9999, or 'auto'")
    return float(cb_beta)


def effective_numbers(counts: npt.ArrayLike, cb_beta: float | Literal["auto"] = "auto") -> FloatArray:
    """E_c = (1 - β^n_c) / (1 - β), shape (C,): the expected volume that n_c images cover.

    Computed as expm1(n log1p(β - 1)), which keeps its digits as β → 1 where 1 - β^n does not.
    Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, eq. 2.

    Examples:
        >>> effective_numbers([1, 10, 100], 0.9).round(3)
        array([ 1.   ,  6.513, 10.   ])
    """
    n = np.asarray(in_class_order(counts), dtype=np.float64)
    beta = resolve_cb_beta(cb_beta, n)
    if beta == 0.0:
        return (n > 0).astype(np.float64)
    return np.asarray(np.expm1(n * np.log1p(beta - 1.0)) / (beta - 1.0))


def shot_groups(counts: npt.ArrayLike, many: float = 100, few: float = 20) -> list[Group]:
    """The group of each class: "many" above `many` images, "few" below `few`, "medium" between (both ends included).

    Source: the shot accuracy of facebookresearch/classifier-balancing, there named many-, median- and low-shot.

    Raises:
        InputError: `few` above `many`.
    """
    if few > many:
        raise InputError(f"few <= many (= {many:g})", f"few = {few:g}", "swap the two thresholds")
    ordered = np.asarray(in_class_order(counts), dtype=np.float64)
    return ["many" if n > many else "few" if n < few else "medium" for n in ordered]


@dataclass(frozen=True)
class ImbalanceStatistics:
    """What the counts of a data set say about its imbalance.

    Args:
        n_images: Sum of the counts.
        n_classes: C.
        imbalance_factor: n_max / n_min over the classes that have images.
        gini: Of the counts, in [0, 1).
        effective_numbers: Of each class, (C,).
        groups: Many, medium or few, of each class, (C,).
    """

    n_images: int
    n_classes: int
    imbalance_factor: float
    gini: float
    effective_numbers: tuple[float, ...]
    groups: tuple[Group, ...]


def imbalance_statistics(
    counts: npt.ArrayLike, cb_beta: float | Literal["auto"] = "auto", many: float = 100, few: float = 20
) -> ImbalanceStatistics:
    """All statistics of this file in one value.

    Args:
        counts: Images of each class, (C,).
        cb_beta: Of `effective_numbers`.
        many: Of `shot_groups`.
        few: Likewise.

    Raises:
        InputError: No image at all with `cb_beta` "auto", β outside [0, 1), or `few` above `many`.
    """
    n = np.asarray(in_class_order(counts), dtype=np.int64)
    return ImbalanceStatistics(
        n_images=int(n.sum()),
        n_classes=n.size,
        imbalance_factor=imbalance_factor(n),
        gini=gini(n),
        effective_numbers=tuple(effective_numbers(n, cb_beta).tolist()),
        groups=tuple(shot_groups(n, many, few)),
    )
