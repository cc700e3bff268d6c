"""Long-tail profiles: how many images each class keeps, and which ones, exactly as in the published subsets.

    exp   n_c = int(n_max · μ^(c / (C - 1)))
    step  n_c = int(n_max) for the first half of the classes, int(n_max · μ) for the rest

with n_max = images / C and μ = n_min / n_max. Source: kaidic/LDAM-DRW, imbalance_cifar.py.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rebalance.counts import IntArray, in_class_order
from rebalance.errors import InputError, nearest


def long_tail_counts(n_images: int, n_classes: int, *, imbalance_factor: float, profile: str = "exp") -> IntArray:
    """Images of each class in a long-tailed subset of a balanced set, shape (C,).

    Truncates with int() as the original does (100 · 0.29 → 28). Unlike the original, an odd C with "step" keeps
    every class (the tail has one more than the head; the original drops the last class), C = 1 works, and a class
    that would be left without an image is refused.

    Args:
        n_images: Size of the balanced set.
        n_classes: C.
        imbalance_factor: n_max / n_min (100 for "IF 100"); a value below 1 is read as n_min / n_max.
        profile: "exp" or "step".

    Raises:
        InputError: Unknown profile, a factor that is not positive, no class, or a class that would be empty.

    Examples:
        >>> long_tail_counts(50_000, 10, imbalance_factor=100).tolist()
        [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    if not imbalance_factor > 0:
        raise InputError("an imbalance factor > 0", repr(imbalance_factor), "use n_max / n_min, for example 100")
    if n_classes < 1:
        raise InputError("at least one class", repr(n_classes), "pass the number of classes")
    ratio = 1.0 / imbalance_factor if imbalance_factor >= 1 else imbalance_factor
    n_max = n_images / n_classes
    if profile == "exp":
        counts = [int(n_max * ratio ** (c / max(n_classes - 1, 1))) for c in range(n_classes)]
    elif profile == "step":
        head = n_classes // 2 if n_classes > 1 else 1
        counts = [int(n_max)] * head + [int(n_max * ratio)] * (n_classes - head)
    else:
        raise InputError("a profile out of exp, step", repr(profile), nearest(profile, ("exp", "step")))
    if min(counts) < 1:
        raise InputError(
            "a profile that leaves every class an image",
            f"{n_images} images, {n_classes} classes, imbalance factor {imbalance_factor:g}: class "
            f"{counts.index(0)} would be empty",
            f"use an imbalance factor below {n_max:g}",
        )
    return np.array(counts, dtype=np.int64)


def long_tail_subset(targets: npt.ArrayLike, counts: npt.ArrayLike, seed: int = 0) -> IntArray:
    """Rows of the subset that keeps `counts[c]` images of class c, ordered by class.

    Class by class in ascending order the class's rows are shuffled by one legacy RandomState stream and the first
    n_c kept: with seed 0 these are the very images of the published CIFAR subsets. The global NumPy state is left
    alone (the original seeds it).

    Raises:
        InputError: A class has fewer images than the profile asks for.
    """
    ids = np.asarray(targets, dtype=np.int64)
    wanted = np.asarray(in_class_order(counts), dtype=np.int64)
    stream = np.random.RandomState(seed)
    chosen = []
    for label, n in enumerate(wanted):
        rows = np.flatnonzero(ids == label)
        if rows.size < n:
            raise InputError(
                f"at least {n} images of class {label}",
                str(rows.size),
                "make a data set long-tailed only where its classes are equally large, or lower its profile",
            )
        stream.shuffle(rows)
        chosen.append(rows[:n])
    return np.concatenate(chosen).astype(np.int64)
