"""Images as arrays of any number type and layout ↔ RGB uint8."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt

from rebalance.counts import FloatArray
from rebalance.data.table import ByteArray
from rebalance.errors import InputError

Stack = npt.NDArray[Any]
"""Images (N, H, W) or (N, H, W, C), C = 1 or 3, or one flat row each (N, H·W·C)."""


@final
@dataclass(frozen=True)
class StackFormat:
    """What the images of a stack look like.

    uint8 is taken as it is. Other numbers are scaled: `low` becomes 0 and `high` 255; what is beyond is clipped.

    Args:
        image_shape: Of an image, (H, W) or (H, W, C).
        row_shape: Of a row of the stack: `image_shape`, or the number of its values.
        dtype: Of the stack.
        low: Black.
        high: White.
    """

    image_shape: tuple[int, ...]
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    low: float
    high: float

    @classmethod
    def of(cls, stack: Stack, image_shape: Sequence[int] | None = None) -> Self:
        """The format of a stack, black and white being its smallest and largest value.

        Args:
            stack: The images, at least one.
            image_shape: (H, W) or (H, W, C), needed for flat rows.

        Raises:
            InputError: Another shape, or values that are not finite numbers.
        """
        row = tuple(stack.shape[1:])
        shape = row if image_shape is None else tuple(int(n) for n in image_shape)
        if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))) or min(shape) < 1:
            raise InputError(
                "images (N, H, W) or (N, H, W, C) with 1 or 3 channels, or flat rows with image_shape=(H, W) or "
                "(H, W, C)",
                f"rows of shape {row}" + ("" if image_shape is None else f" and image_shape={shape}"),
                "reshape the images, or convert them to RGB",
            )
        if row not in (shape, (math.prod(shape),)):
            raise InputError(f"rows of image_shape={shape}, or flat ones", f"rows of shape {row}", "correct the shape")
        if stack.dtype.kind not in "biuf":
            raise InputError("images of numbers", f"dtype {stack.dtype}", "convert them to uint8")
        if stack.dtype == np.uint8:
            return cls(shape, row, stack.dtype, 0.0, 255.0)
        low, high = float(stack.min()), float(stack.max())
        if not np.isfinite([low, high]).all():
            raise InputError("finite pixels", f"values from {low:g} to {high:g}", "mend the images")
        return cls(shape, row, stack.dtype, low, high)

    def to_rgb(self, stack: Stack) -> ByteArray:
        """Pixels (N, H, W, 3) uint8, read-only; no copy of uint8.

        Raises:
            InputError: The rows have another shape than those that the format is of.
        """
        if stack.shape[1:] != self.row_shape:
            raise InputError(
                f"rows of shape {self.row_shape}, as in fit", f"{tuple(stack.shape[1:])}", "resize the images"
            )
        pixels = stack if self.dtype == np.uint8 == stack.dtype else to_bytes(stack, self.low, self.high)
        height, width = self.image_shape[:2]
        return np.broadcast_to(pixels.reshape(len(stack), height, width, -1), (len(stack), height, width, 3))

    def from_unit(self, images: npt.NDArray[np.floating[Any]]) -> Stack:
        """A stack of this format from images (N, H, W, 3) in [0, 1]; of grey stacks the first channel is taken."""
        n_channels = self.image_shape[2] if len(self.image_shape) == 3 else 1
        values = self.low + images[..., :n_channels].astype(np.float64) * (self.high - self.low)
        if self.dtype.kind in "biu":
            values = np.rint(values)
        return values.astype(self.dtype).reshape(len(images), *self.row_shape)


def to_bytes(values: Stack, low: float | FloatArray, high: float | FloatArray) -> ByteArray:
    """Numbers → uint8 of the same shape: `low` → 0, `high` → 255, clipped; all 0 where both are equal."""
    span = np.subtract(high, low, dtype=np.float64)
    shares = (values.astype(np.float64) - low) / np.where(span > 0, span, np.inf)
    pixels: ByteArray = np.rint(shares.clip(0, 1) * 255).astype(np.uint8)
    return pixels
