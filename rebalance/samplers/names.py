"""The class names of a data set, as it gives them itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from rebalance.errors import InputError


def find_numbering(source: Any) -> tuple[Any, ...] | dict[Any, Any] | None:
    """How a data set numbers its classes; equal where two do it alike.

    Its `classes`, or the names of a Hugging Face label column: a tuple of names by number; where it is a mapping, which
    has names and numbers on either side, a dict. A `Subset` has that of its data set, a `ConcatDataset` that of the
    first part which has one.
    """
    if isinstance(source, Subset):
        return find_numbering(source.dataset)
    if isinstance(source, ConcatDataset):
        return next((found for found in map(find_numbering, source.datasets) if found is not None), None)
    if hasattr(source, "column_names") and hasattr(source, "features"):
        kinds = [kind for kind in (source.features or {}).values() if type(kind).__name__ == "ClassLabel"]
        return tuple(kinds[0].names) if len(kinds) == 1 else None
    found = getattr(source, "classes", None)
    if isinstance(found, Mapping):
        return dict(found)
    return tuple(found) if isinstance(found, Iterable) and not isinstance(found, str) else None


def find_names(source: Any) -> tuple[str, ...] | None:
    """The class names of a data set; None where it has none, or some that do not tell the classes apart.

    Examples:
        >>> from types import SimpleNamespace
        >>> find_names(Subset(SimpleNamespace(classes=["cat", "owl"]), [0]))
        ('cat', 'owl')
    """
    names = find_numbering(source)
    if not names or isinstance(names, dict):
        return None
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return None
    return tuple(map(str, names))  # NumPy's strings too


def name_weights(weights: Mapping[str, float] | Mapping[int, float], classes: Sequence[str]) -> dict[str, float]:
    """`weights` by class name; a key that is none is the number of a class.

    Raises:
        InputError: A class has a weight by its name and another by its number.

    Examples:
        >>> name_weights({"cat": 1.0, "1": 2.0}, ["cat", "owl"])
        {'cat': 1.0, 'owl': 2.0}
    """
    named: dict[str, float] = {}
    known = {str(number): name for number, name in enumerate(classes)} | {name: name for name in classes}
    for key, weight in weights.items():
        name = known.get(str(key), str(key))
        if name in named:
            raise InputError("one weight a class", f"two for {name!r}", "name a class once, or number it")
        named[name] = weight
    return named
