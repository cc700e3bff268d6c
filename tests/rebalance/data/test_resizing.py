from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rebalance.data.resizing import resize_images

SIZES = [4, 16, (5, 23), (12, 9)]


def random_bytes(n: int, size: tuple[int, int] = (12, 10)) -> Tensor:
    return torch.randint(0, 256, (n, 3, *size), generator=torch.Generator().manual_seed(0)).byte()


def weights(before: int, after: int) -> np.ndarray:
    """Share of each old pixel in each new one: Keys' cubic with a = -1/2, stretched where new pixels are wider."""
    matrix = np.zeros((after, before))
    width = max(before / after, 1.0)
    for new in range(after):
        for old in range(before):
            x = abs((old + 0.5 - (new + 0.5) * before / after) / width)
            if x < 1:
                matrix[new, old] = 1.5 * x**3 - 2.5 * x**2 + 1
            elif x < 2:
                matrix[new, old] = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return matrix / matrix.sum(axis=1, keepdims=True)


def resized(images: Tensor, size: int | tuple[int, int]) -> np.ndarray:
    height, width = (size, size) if isinstance(size, int) else size
    rows, columns = weights(images.shape[2], height), weights(images.shape[3], width)
    return np.einsum("ih,nchw,jw->ncij", rows, images.double().numpy(), columns)


@pytest.mark.parametrize("size", SIZES)
def test_floats_are_the_antialiased_cubic_clipped_to_the_unit_interval(size: int | tuple[int, int]) -> None:
    images = random_bytes(2).gt(127).float()
    expected = resized(images, size)
    np.testing.assert_allclose(resize_images(images, size).numpy(), expected.clip(0, 1), atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_bytes_are_rounded_and_clipped(size: int | tuple[int, int]) -> None:
    images = random_bytes(2).gt(127) * torch.tensor(255, dtype=torch.uint8)
    made = resize_images(images, size)
    assert made.dtype == torch.uint8
    assert np.abs(made.numpy() - resized(images, size).clip(0, 255)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_of_the_size_are_handed_back(dtype: torch.dtype) -> None:
    images = random_bytes(2).to(dtype)
    assert resize_images(images, (12, 10)) is images
    assert resize_images(images[..., :4, :4], 4).shape == (2, 3, 4, 4)
    assert resize_images(images, 10).shape == (2, 3, 10, 10)  # one side alone is not the size


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_no_images_are_resized_too(dtype: torch.dtype) -> None:
    made = resize_images(torch.zeros((0, 3, 12, 10), dtype=dtype), 4)
    assert made.shape == (0, 3, 4, 4)
    assert made.dtype == dtype


def test_an_image_does_not_depend_on_those_beside_it() -> None:
    images = random_bytes(1030, (6, 6))
    made = resize_images(images, 4)
    assert len(made) == 1030
    for i in (0, 1023, 1024, 1029):
        assert torch.equal(made[i], resize_images(images[i : i + 1], 4)[0])


def test_pixels_that_are_no_numbers_stay_in_their_image() -> None:
    images = random_bytes(2).float() / 255
    images[0, 0, 0, 0] = torch.nan
    made = resize_images(images, 4)
    assert made[0].isnan().any()
    assert not made[1].isnan().any()
