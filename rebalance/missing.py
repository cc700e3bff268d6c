"""Rows whose label is missing, in the words of an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rebalance.errors import InputError


def check_labelled(labels: npt.NDArray[Any]) -> None:
    """Refuses labels (N,) of which one is None, NaN or pandas' NA.

    Raises:
        InputError: With the first such row.

    Examples:
        >>> check_labelled(np.array(["cat", None], dtype=object))
        Traceback (most recent call last):
        ...
        rebalance.errors.InputError: expected a label for every row; got none (None) in row 1; leave such rows out
    """
    if labels.dtype.kind == "f":
        missing = np.flatnonzero(np.isnan(labels)).tolist()
    elif labels.dtype.kind == "O":
        missing = [row for row, label in enumerate(labels.tolist()) if _is_missing(label)]
    else:
        return
    if missing:
        raise InputError(
            "a label for every row", f"none ({labels[missing[0]]}) in row {missing[0]}", "leave such rows out"
        )


def _is_missing(label: Any) -> bool:
    return label is None or (isinstance(label, float) and label != label) or type(label).__name__ == "NAType"
