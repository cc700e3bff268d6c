from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rebalance.data.pixels import StackFormat, to_bytes
from rebalance.errors import InputError

GREY = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (5, 4, 3, 3)).astype(np.uint8)


@pytest.mark.parametrize("stack", [GREY, GREY[..., None], RGB])
def test_bytes_are_taken_as_they_are(stack: np.ndarray) -> None:
    form = StackFormat.of(stack)
    pixels = form.to_rgb(stack)
    assert (pixels.shape, pixels.dtype) == ((5, 4, 3, 3), np.uint8)
    assert np.shares_memory(pixels, stack)
    for channel in range(3):
        np.testing.assert_array_equal(
            pixels[..., channel], stack.reshape(5, 4, 3, -1)[..., channel if stack is RGB else 0]
        )
    np.testing.assert_array_equal(form.from_unit(pixels / 255), stack)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint16, bool])
@pytest.mark.parametrize("flat", [True, False])
def test_other_numbers_are_scaled_and_come_back(dtype: type, flat: bool) -> None:
    values = GREY.astype(np.int64) * 3 - 100
    stack = values > 300 if dtype is bool else values.astype(dtype)
    form = StackFormat.of(stack.reshape(5, -1), (4, 3)) if flat else StackFormat.of(stack)
    rows = stack.reshape(5, -1) if flat else stack
    pixels = form.to_rgb(rows)
    assert (pixels.min(), pixels.max()) == (0, 255)
    back = form.from_unit(pixels / 255)
    assert (back.dtype, back.shape) == (stack.dtype, rows.shape)
    step = (float(stack.max()) - float(stack.min())) / 255
    assert np.abs(back.astype(float) - rows).max() <= step / 2 + 1


def test_what_is_beyond_the_first_stack_is_clipped() -> None:
    form = StackFormat.of(np.array([[[0.0, 1.0]]]))
    assert form.to_rgb(np.array([[[-1.0, 0.5]], [[2.0, 1.0]]]))[..., 0].tolist() == [[[0, 128]], [[255, 255]]]
    assert form.to_rgb(np.array([[[0, 1]]]))[..., 0].tolist() == [[[0, 255]]]


def test_equal_values_are_black() -> None:
    assert to_bytes(np.full((2, 2), 7.0), 7.0, 7.0).tolist() == [[0, 0], [0, 0]]
    assert to_bytes(np.array([[1.0, 5.0], [1.0, 6.0]]), np.array([1.0, 5.0]), np.array([1.0, 6.0])).tolist() == [
        [0, 0],
        [0, 255],
    ]


@pytest.mark.parametrize(
    ("stack", "image_shape", "message"),
    [
        (np.zeros((3, 4)), None, r"got rows of shape \(4,\); reshape"),
        (np.zeros((3, 4, 4, 2)), None, "with 1 or 3 channels"),
        (np.zeros((3, 12)), (2, 5), r"rows of image_shape=\(2, 5\), or flat ones; got rows of shape \(12,\)"),
        (np.zeros((3, 12)), (12,), r"image_shape=\(12,\)"),
        (np.zeros((3, 0, 4)), None, "reshape"),
        (np.zeros((3, 4, 4), complex), None, "dtype complex128"),
        (np.full((3, 4, 4), np.nan), None, "finite pixels"),
    ],
)
def test_other_arrays_are_refused(stack: np.ndarray, image_shape: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        StackFormat.of(stack, image_shape)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected rows of shape \(4, 3\), as in fit; got \(3, 4\)"):
        StackFormat.of(GREY).to_rgb(GREY.transpose(0, 2, 1))
