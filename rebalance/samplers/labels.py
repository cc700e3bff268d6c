"""The labels of a data set, found without opening an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import ConcatDataset, Sampler, Subset, TensorDataset

from rebalance.errors import InputError
from rebalance.missing import check_labelled
from rebalance.samplers.names import find_names, find_numbering

Array = npt.NDArray[Any]
_ATTRIBUTES = ("targets", "labels", "_labels")  # one label a row; the underscore is torchvision's Flowers102 and others
_PAIRS = ("samples", "imgs", "_samples")  # (path, label) a row
_COLUMNS = ("label", "labels", "target", "targets", "class")


def find_labels(source: Any) -> Array:
    """The label of every row, shape (N,): whole numbers or strings. `source[i]` is never called.

    Args:
        source: Labels (list, array, tensor, series, column), a function without arguments that returns them, or a data
            set: with `targets`, `labels`, `samples` or `imgs`; a `Subset` or `ConcatDataset` of such, nested at will; a
            `TensorDataset` whose last tensor is the labels; a Hugging Face `Dataset` with one column of labels.

    Raises:
        InputError: No labels found (says what to pass), not one label a row, a missing label, or joined data sets that
            number their classes differently.

    Examples:
        >>> find_labels([("a.jpg", 0), ("b.jpg", 1)])
        Traceback (most recent call last):
        ...
        rebalance.errors.InputError: expected one label a row; got labels of shape (2, 2); pass a list of labels
    """
    return _checked(_search(source))


def find_classes(source: Any, classes: Sequence[str] | None = None) -> tuple[npt.NDArray[np.integer], tuple[str, ...]]:
    """As `encode`, of the labels of `source`: where `classes` is None, ids have the names that `source` gives them.

    Raises:
        InputError: As `find_labels` and `encode`.
    """
    labels = find_labels(source)
    if classes is None and labels.dtype.kind != "U" and labels.size:
        names = find_names(source)
        if names is not None and labels.max() < len(names):
            classes = names
    return encode(labels, classes)


def encode(labels: Array, classes: Sequence[str] | None) -> tuple[npt.NDArray[np.integer], tuple[str, ...]]:
    """Class ids (N,) and class names (C,).

    Whole numbers are class ids: C is the number of `classes`, by default the largest id plus one. Strings are class
    names: numbered by their place in `classes`, by default sorted.

    Raises:
        InputError: No label, a negative id, or a label that `classes` does not have.
    """
    if labels.size == 0:
        raise InputError("at least one label", "none", "pass the label of every training row")
    if labels.dtype.kind == "U":
        found: list[str] = labels.tolist()
        names = tuple(classes) if classes is not None else tuple(sorted(set(found)))
        number = {name: c for c, name in enumerate(names)}
        unknown = set(found) - number.keys()
        if unknown:
            raise InputError(
                "labels out of classes", repr(min(unknown)), "add the class, or leave `classes` out to take those found"
            )
        return np.fromiter(map(number.__getitem__, found), dtype=np.int64, count=len(found)), names
    low, high = int(labels.min()), int(labels.max())
    n_classes = len(classes) if classes is not None else high + 1
    if low < 0:
        raise InputError("class ids from 0", f"label {low}", "leave unlabelled rows out (a Subset) before sampling")
    if high >= n_classes:
        raise InputError(f"class ids below the {n_classes} classes", f"label {high}", "pass the name of every class")
    if n_classes > 1_000_000 + 100 * labels.size:
        raise InputError("class ids from 0 on", f"label {high}", "number the classes 0, 1, …, or pass them as strings")
    return labels, tuple(classes) if classes is not None else tuple(map(str, range(n_classes)))


def _search(source: Any) -> Any:
    if isinstance(source, torch.Tensor):
        return source.detach().cpu().numpy()
    if isinstance(source, (np.ndarray, list, tuple)) or hasattr(source, "__array__"):
        return source
    if isinstance(source, Subset):
        return _checked(_search(source.dataset))[np.asarray(source.indices, dtype=np.int64)]
    if isinstance(source, ConcatDataset):
        return _joined(source.datasets)
    if isinstance(source, TensorDataset):
        return source.tensors[-1].numpy()
    if hasattr(source, "column_names") and hasattr(source, "features"):
        return _column(source)
    if isinstance(source, Sampler):  # labels of its own are for its own use: often one a class
        raise InputError(
            "labels, or a data set",
            f"a sampler ({type(source).__name__})",
            "pass the labels that it draws by, or give it to DistributedEpochSampler",
        )
    for name in _ATTRIBUTES:
        if getattr(source, name, None) is not None:
            return _one_each(_search(getattr(source, name)), source, name)
    for name in _PAIRS:
        if getattr(source, name, None) is not None:
            return _one_each([row[1] for row in getattr(source, name)], source, name)
    if callable(source):
        return _search(source())
    if isinstance(source, Sequence) and not isinstance(source, (str, bytes)):
        return source[:]
    raise InputError(
        "labels, or a data set with targets, labels, samples or imgs",
        f"{type(source).__name__} without any of them",
        "pass the label of every row as a list, array or tensor",
    )


def _one_each(labels: Any, source: Any, name: str) -> Any:
    """`labels`, which must be as many as `source` has rows."""
    if hasattr(source, "__len__") and hasattr(labels, "__len__") and len(labels) != len(source):
        raise InputError(
            f"a label for each of {len(source)} rows",
            f"{len(labels)} in .{name} of {type(source).__name__}",
            "pass the label of every row as a list, array or tensor",
        )
    return labels


def _joined(datasets: Sequence[Any]) -> Array:
    parts = [_checked(_search(part)) for part in datasets]
    found = [find_numbering(part) for part in datasets]
    names = [numbering for numbering in found if numbering is not None]
    by_number = any(part.dtype.kind != "U" for part in parts)
    if by_number and any(other != names[0] for other in names):
        raise InputError(
            "joined data sets with the same classes",
            "class lists that differ",
            "pass the labels as class names, one list over all parts",
        )
    return np.concatenate(parts)


def _column(dataset: Any) -> Any:
    """The one label column of a Hugging Face data set; no other column is read."""
    found = [name for name, kind in (dataset.features or {}).items() if type(kind).__name__ == "ClassLabel"]
    found = found or [name for name in _COLUMNS if name in dataset.column_names]
    if len(found) != 1:
        raise InputError(
            "a data set with one column of labels",
            f"{len(found)} ({', '.join(found)})" if found else f"the columns {', '.join(dataset.column_names)}",
            'pass the column: dataset["name of the column"]',
        )
    return dataset.select_columns(found).with_format("numpy")[:][found[0]]


def _checked(labels: Any) -> Array:
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InputError("one label a row", f"labels of shape {array.shape}", "pass a list of labels")
    check_labelled(array)
    kind = array.dtype.kind
    if kind in "iu":
        return array
    if kind == "b":
        return array.astype(np.int64)
    if kind == "f":
        whole = np.isfinite(array) & (array == np.rint(array))
        if not whole.all():
            raise InputError("class ids or names", f"label {array[~whole][0]!r}", "pass whole numbers or strings")
        return array.astype(np.int64)
    rows = array.tolist()
    if all(isinstance(label, str) for label in rows):
        return array.astype(str)
    if all(isinstance(label, (int, np.integer)) for label in rows):
        return np.array(rows, dtype=np.int64)
    wrong = next(label for label in rows if not isinstance(label, str))
    raise InputError("class ids or names", f"label {wrong!r}", "pass whole numbers, or strings, for every row")
