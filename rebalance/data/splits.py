"""Changes to the splits: a long-tailed training set, and images held out for validation or test.

What is held out is never a copy of what trains: all copies of an image are on one side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rebalance.counts import IntArray
from rebalance.data.repeats import first_copies
from rebalance.data.table import ImageTable, Splits
from rebalance.errors import InputError, listed
from rebalance.plurals import counted
from rebalance.profiles import long_tail_counts, long_tail_subset

MIN_VALIDATION_IMAGES = 5
"""With fewer images a class's validation accuracy is noise, and selection by it does harm."""

_WITHOUT_VALIDATION = "leave out --val-fraction: without it all images train and the last epoch is reported"
_SHOWN = 20


def check_fraction(fraction: float, flag: str) -> float:
    """The share of a class to hold out, as it is.

    Raises:
        InputError: It is not inside (0, 1).
    """
    if not 0 < fraction < 1:
        raise InputError(f"a {flag} in (0, 1)", repr(fraction), "use for example 0.1")
    return fraction


def make_long_tailed(splits: Splits, imbalance_factor: float, profile: str = "exp", seed: int = 0) -> Splits:
    """`splits` with the training split cut to a long-tailed profile (the published subset at seed 0).

    Raises:
        InputError: A factor or a profile that does not fit, or a class with fewer images than the profile keeps.
    """
    train = splits.train
    counts = long_tail_counts(len(train), len(train.classes), imbalance_factor=imbalance_factor, profile=profile)
    for name, n, wanted in zip(train.classes, train.counts, counts, strict=True):
        if n < wanted:
            raise InputError(
                f"at least {wanted} images of {name!r} for an imbalance factor of {imbalance_factor:g}",
                str(n),
                "leave out --imbalance-factor: it is for data with equally large classes",
            )
    rows = long_tail_subset(train.targets, counts, seed)
    note = f"training split cut to an imbalance factor of {imbalance_factor:g} ({profile}): {len(rows)} images"
    return replace(splits, train=train.select(rows), notes=(*splits.notes, note))


def hold_out_validation(splits: Splits, fraction: float, seed: int = 0) -> Splits:
    """`splits` with a stratified share of train as validation split.

    Raises:
        InputError: A fraction outside (0, 1), a validation split that exists already, or a class that would give
            fewer than `MIN_VALIDATION_IMAGES` images.
    """
    if splits.val is not None:
        raise InputError("data without a validation split", "one", "leave out --val-fraction")
    counts = splits.train.counts
    taken = np.minimum(_round(check_fraction(fraction, "--val-fraction") * counts), counts - 1)  # train keeps one
    small = np.flatnonzero(taken < MIN_VALIDATION_IMAGES)
    if small.size:
        raise InputError(
            f"at least {MIN_VALIDATION_IMAGES} validation images in every class, so about "
            f"{math.ceil(MIN_VALIDATION_IMAGES / fraction)} training images",
            _shares(small, np.maximum(taken, 0), counts, splits.classes),
            _WITHOUT_VALIDATION,
        )
    train, val, repeats = _cut(splits.train, taken, seed)
    small = np.flatnonzero(val.counts < MIN_VALIDATION_IMAGES)
    if small.size:
        raise InputError(
            f"at least {MIN_VALIDATION_IMAGES} validation images in every class, copies of none that trains",
            f"{_shares(small, val.counts, counts, splits.classes)}, many of them copies",
            _WITHOUT_VALIDATION,
        )
    note = f"{len(val)} training images ({fraction:.0%}) held out for validation"
    return replace(splits, train=train, val=val, notes=(*splits.notes, note, *repeats))


def _shares(rows: IntArray, taken: IntArray, counts: IntArray, classes: Sequence[str]) -> str:
    """What validation would get of classes, the smallest first."""
    ordered = sorted(rows.tolist(), key=lambda row: (counts[row], row))
    told = [f"{taken[row]} of the {counts[row]} images of {classes[row]!r}" for row in ordered[:_SHOWN]]
    more = [f"as little of {counted(len(ordered) - _SHOWN, 'more class', 'more classes')}"]
    return ", ".join(told + more if len(ordered) > _SHOWN else told)


def hold_out_test(splits: Splits, fraction: float, seed: int = 0) -> Splits:
    """`splits` with a stratified share of train as test split; a class of one image keeps it.

    Raises:
        InputError: A fraction outside (0, 1), or a test split that exists already.
    """
    if splits.test is not None:
        raise InputError("data without a test split", "one", "leave out --test-fraction")
    counts = splits.train.counts
    taken = np.minimum(np.maximum(_round(check_fraction(fraction, "--test-fraction") * counts), 1), counts - 1)
    train, test, repeats = _cut(splits.train, np.maximum(taken, 0), seed)
    images = counted(len(test), "training image")
    note = f"no test split: {images} ({fraction:.0%} of each class) held out for the test"
    untested = np.flatnonzero((test.counts == 0) & (counts > 0))
    single = [splits.classes[label] for label in untested]
    notes = (note, f"classes of one image have no test image: {listed(single)}") if single else (note,)
    return replace(splits, train=train, test=test, notes=(*splits.notes, *notes, *repeats))


def stratified_folds(targets: IntArray, n_folds: int, seed: int = 0, copies: IntArray | None = None) -> IntArray:
    """The fold of each row, (N,): every class spread over the folds as evenly as it can be.

    A class with fewer images than folds is in some folds only; its smallest share starts at another fold for each
    class, so that the folds stay equally large.

    Args:
        targets: Class ids (N,).
        n_folds: How many.
        seed: What decides.
        copies: Of `first_copies`, (N,): rows of one image are in one fold.
    """
    stream = np.random.RandomState(seed)
    folds = np.empty(len(targets), dtype=np.int64)
    start = 0
    first = np.arange(len(targets)) if copies is None else copies
    for label in np.unique(targets):
        rows = stream.permutation(np.unique(first[targets == label]))
        folds[rows] = (start + np.arange(len(rows))) % n_folds
        start += len(rows)
    return folds[first]


def _cut(table: ImageTable, taken: IntArray, seed: int) -> tuple[ImageTable, ImageTable, tuple[str, ...]]:
    """The rows that stay, those held out, and what is to be said of repeated images."""
    stream = np.random.RandomState(seed)
    copies = first_copies(table)
    sizes = np.bincount(copies, minlength=len(table))
    held: list[int] = []
    for label, n in enumerate(taken.tolist()):
        images = list(dict.fromkeys(copies[stream.permutation(np.flatnonzero(table.targets == label))].tolist()))
        held += _whole_images(images, sizes, n)
    is_held = np.isin(copies, np.array(held, dtype=np.int64))
    repeated = int(len(table) - (sizes > 0).sum())
    are = counted(repeated, "image is a copy", "images are copies")
    note = f"{are} of another one of their class: all copies of an image are on one side"
    notes = (note,) if repeated else ()
    return table.select(np.flatnonzero(~is_held)), table.select(np.flatnonzero(is_held)), notes


def _whole_images(images: list[int], sizes: IntArray, n: int) -> list[int]:
    """Images with `n` rows in all, in order, or as few more as their copies ask for; one image is left."""
    chosen: list[int] = []
    room = n
    for image in images:
        if room == 0:
            break
        if sizes[image] <= room:
            chosen.append(image)
            room -= int(sizes[image])
    taken = set(chosen)
    left = [image for image in images if image not in taken]
    if room and len(left) > 1:
        chosen.append(min(left, key=lambda image: int(sizes[image])))
    return chosen


def _round(values: npt.ArrayLike) -> IntArray:
    rounded: IntArray = np.rint(values).astype(np.int64)
    return rounded
