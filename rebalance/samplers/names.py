"""The class names of a data set, as it gives them itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.utils.data import ConcatDataset, Subset


def find_numbering(source: Any) -> tuple[Any, ...] | None:
    """What a data set says of its classes, in their order: `classes`, or the names of a Hugging Face label column.

    A `Subset` has that of its data set, a `ConcatDataset` that of the first part which has one.
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
        return tuple(found.items())
    return tuple(found) if isinstance(found, Iterable) and not isinstance(found, str) else None


def find_names(source: Any) -> tuple[str, ...] | None:
    """The class names of a data set; None where it has none, or some that do not tell the classes apart.

    Examples:
        >>> from types import SimpleNamespace
        >>> find_names(Subset(SimpleNamespace(classes=["cat", "owl"]), [0]))
        ('cat', 'owl')
    """
    names = find_numbering(source) or ()
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return None
    return tuple(map(str, names))  # NumPy's strings too
