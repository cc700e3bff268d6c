"""Counts as losses take them: any sequence, array or tensor → a float64 tensor (C,) of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

PerClass: TypeAlias = "Sequence[float] | npt.NDArray[Any] | Tensor"


def per_class(values: PerClass, name: str) -> Tensor:
    """`values` as a float64 tensor (C,) that shares no memory with them.

    A pandas Series is taken by its index, which holds 0 … C - 1 in any order: `value_counts` sorts by frequency.

    Raises:
        ValueError: A mapping, a Series with another index, no class, or a value that is negative, NaN or infinite.
    """
    if isinstance(values, Mapping):
        raise ValueError(
            f"expected {name} in the order of the class ids; got a {type(values).__name__}; "
            "pass for example [counts[name] for name in classes]"
        )
    if isinstance(values, Tensor):
        tensor = values.detach().to(torch.float64, copy=True).flatten()
    else:
        tensor = torch.tensor(np.asarray(_in_class_order(values, name), dtype=np.float64)).flatten()
    if tensor.numel() == 0:
        raise ValueError(f"expected {name} of at least one class; got none; pass one value for every class")
    bad = (~(tensor >= 0) | tensor.isinf()).nonzero()
    if len(bad):
        first = int(bad[0])
        raise ValueError(
            f"expected finite {name} >= 0; got {float(tensor[first])} for class {first}; pass one value for every class"
        )
    return tensor


def optional_per_class(values: PerClass | None, name: str) -> Tensor | None:
    """`per_class`, where None stays None."""
    return None if values is None else per_class(values, name)


def positive_counts(counts: PerClass) -> Tensor:
    """`counts` as float64 (C,), refused where a weight or margin would be undefined.

    Raises:
        ValueError: A class without an image.
    """
    n = per_class(counts, "counts")
    empty = (n == 0).nonzero()
    if len(empty):
        raise ValueError(
            f"expected at least one image in every class; got 0 images of class {int(empty[0])}; "
            "remove the class or add an image of it"
        )
    return n


def class_prior(counts: PerClass) -> Tensor:
    """π_c = n_c / Σ n, float64 (C,); counts and probabilities give the same. Classes without an image are allowed.

    Raises:
        ValueError: No class has an image.
    """
    n = per_class(counts, "counts")
    if not bool(n.any()):
        raise ValueError(
            "expected an image in at least one class; got only zero counts; pass the training set's counts"
        )
    return n / n.sum()


def _in_class_order(values: Sequence[float] | npt.NDArray[Any], name: str) -> Sequence[float] | npt.NDArray[Any]:
    """The values of a Series by its index; anything else as it is."""
    index: Any = getattr(values, "index", None)
    if not hasattr(values, "to_numpy") or not hasattr(index, "to_numpy"):
        return values
    keys = index.to_numpy().tolist()
    row = {key: i for i, key in enumerate(keys)}
    if row.keys() != set(range(len(keys))):
        raise ValueError(
            f"expected {name} as a Series by class id, 0 to {len(keys) - 1}; "
            f"got the index {', '.join(map(repr, keys[:4]))}{', …' if len(keys) > 4 else ''}; "
            f"pass for example {name}.reindex(classes, fill_value=0).to_numpy(), with every class in its order"
        )
    return np.asarray(values.to_numpy()[[row[key] for key in range(len(keys))]])
