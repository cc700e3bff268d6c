"""Rows as scikit-learn hands them over → images: stacks, flat rows with or without an image's shape, paths."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np

from rebalance.counts import FloatArray
from rebalance.data.pixel_ranges import PixelRange
from rebalance.data.pixels import Stack, StackFormat, to_bytes
from rebalance.data.table import ByteArray
from rebalance.errors import InputError

_SMALLEST = 8  # px


@final
@dataclass(frozen=True)
class FeatureFormat:
    """Flat rows that are no images: each value a grey square, each column scaled by itself.

    Args:
        low: Smallest value of each column, (F,).
        high: Largest value of each column, (F,).
    """

    low: FloatArray
    high: FloatArray

    @classmethod
    def of(cls, rows: Stack) -> Self:
        """The format of rows (N, F)."""
        return cls(rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64))

    def to_rgb(self, rows: Stack) -> ByteArray:
        """Pictures (N, S, S, 3) uint8, at least 8 px; the values row by row, then black."""
        side = math.isqrt(len(self.low) - 1) + 1
        squares = np.zeros((len(rows), side * side), dtype=np.uint8)
        squares[:, : len(self.low)] = to_bytes(rows, self.low, self.high)
        scale = -(-_SMALLEST // side)
        pixels = squares.reshape(-1, side, side).repeat(scale, axis=1).repeat(scale, axis=2)
        return np.broadcast_to(pixels[..., None], (*pixels.shape, 3))


Format = StackFormat | FeatureFormat | None
"""None for paths."""


def read_format(X: Stack | list[str], image_shape: Sequence[int] | None) -> Format:
    """The format of the rows that a model is fitted on.

    Raises:
        InputError: Neither images nor rows of numbers.
    """
    if isinstance(X, list):
        return None
    return FeatureFormat.of(X) if X.ndim == 2 and image_shape is None else StackFormat.of(X, image_shape)


def read_range(X: Stack | list[str], form: Format) -> PixelRange | None:
    """The range of the pixels that a model is fitted on; None for paths, and for tables, whose columns differ."""
    return PixelRange.of(X) if isinstance(form, StackFormat) and not isinstance(X, list) else None


def refuse_other_kind(X: Any, form: Format) -> None:
    """Refuse paths for a model of arrays, and arrays for a model of paths.

    Raises:
        InputError: The other of the two.
    """
    is_paths = path_column(X) is not None
    if is_paths and form is not None:
        raise InputError("arrays, as in fit", "paths", "read the images, or fit on paths")
    if not is_paths and form is None:
        got = f"an array of shape {tuple(X.shape)}" if hasattr(X, "shape") else f"a {type(X).__name__} without paths"
        raise InputError("paths, as in fit", got, "name the files of the images, or fit on arrays")


def to_images(X: Stack | list[str], form: Format) -> ByteArray | list[str]:
    """Paths, or pixels (N, H, W, 3) uint8.

    Raises:
        InputError: Images of another shape.
    """
    if isinstance(X, list):
        return X
    assert form is not None
    return form.to_rgb(X)


def path_column(X: Any) -> list[str] | None:
    """The paths in a list, or in a frame or an array of one column; None for rows of anything else.

    Raises:
        InputError: Paths that are not one column.
    """
    values: Any = X
    if hasattr(X, "to_numpy"):
        values = X.to_numpy()
    elif isinstance(X, list | tuple) and X and any(map(_is_path, X[0] if isinstance(X[0], list | tuple) else X[:1])):
        values = np.array(X, dtype=object)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "OU" or not any(map(_is_path, values[:1].flat)):
        return None
    if values.ndim > 2 or (values.ndim == 2 and values.shape[1] != 1):
        raise InputError(
            "paths as a list, or as one column of a frame or an array", f"shape {values.shape}", "select it: X['path']"
        )
    paths = values.reshape(-1).tolist()
    if not all(map(_is_path, paths)):
        raise InputError("a path in every row", "rows without", "drop them")
    return [os.fspath(path) for path in paths]


def _is_path(value: object) -> bool:
    return isinstance(value, (str, os.PathLike))
