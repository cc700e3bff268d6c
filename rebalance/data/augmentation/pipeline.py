"""Augmentation of a whole batch on its own device, each image with random parameters of its own.

Everything random comes from one matrix of uniform numbers in [0, 1), one row an image. It is drawn on the CPU for the
*global* batch and indexed like the batch, so that an image is augmented alike on any device and on any number of ranks:

    uniforms = augment.draw(n_global, generator)            # (n_global, K), the generator seeded by (seed, update)
    images = augment(table[rows[rank::world]], uniforms[rank::world])

Pixels stay uint8 from step to step; `normalize` makes them floats once, at the end. Nothing here waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from rebalance.errors import InputError


class Step(Protocol):
    """One operation of an augmentation, a function of the pixels and of its own columns of the uniform numbers."""

    @property
    def n_uniforms(self) -> int:
        """Uniform numbers that the step needs for an image."""

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Augmented copies of uint8 `images` (B, 3, H, W); `uniforms` (B, n_uniforms) lie on the CPU."""


@final
@dataclass(frozen=True)
class Augmentation:
    """Steps in a row: uint8 images (B, 3, H, W) to uint8 images of the same shape. Without a step, the identity."""

    steps: tuple[Step, ...]

    @property
    def n_uniforms(self) -> int:
        """Uniform numbers for one image."""
        return sum(step.n_uniforms for step in self.steps)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """All that is random for `n` images, float32 (n, n_uniforms), from a CPU generator."""
        return torch.rand(n, self.n_uniforms, generator=generator, dtype=torch.float32)

    @torch.no_grad()
    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Augmented `images`, which are left as they are (and are the result itself where no step changes any).

        Args:
            images: uint8, (B, 3, H, W), on any device.
            uniforms: Rows of `draw`, (B, n_uniforms), on the CPU.

        Raises:
            InputError: Wrong dtype or shape.
        """
        _check(images, uniforms, self.n_uniforms)
        images = images.contiguous()
        start = 0
        for step in self.steps:
            images = step(images, uniforms[:, start : start + step.n_uniforms])
            start += step.n_uniforms
        return images


@final
@dataclass(frozen=True)
class MultiView:
    """Several augmentations of the same images: uint8 (B, 3, H, W) to uint8 (B, V, 3, H, W)."""

    views: tuple[Augmentation, ...]

    @property
    def n_uniforms(self) -> int:
        """Uniform numbers for one image, over all its views."""
        return sum(view.n_uniforms for view in self.views)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """All that is random for `n` images, float32 (n, n_uniforms), from a CPU generator."""
        return torch.rand(n, self.n_uniforms, generator=generator, dtype=torch.float32)

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """The views of each image, (B, V, 3, H, W); arguments as for `Augmentation`."""
        _check(images, uniforms, self.n_uniforms)
        columns = torch.split(uniforms, [view.n_uniforms for view in self.views], dim=1)
        return torch.stack([view(images, own) for view, own in zip(self.views, columns, strict=True)], dim=1)


def normalize(
    images: Tensor, mean: Tensor, std: Tensor, *, dtype: torch.dtype = torch.float32, channels_last: bool = False
) -> Tensor:
    """(images / 255 - mean) / std, of the same shape; computed in float32, then cast.

    Args:
        images: uint8, (B, 3, H, W) or (B, V, 3, H, W).
        mean: (3,), on the images' device, of pixels in [0, 1].
        std: (3,), likewise.
        dtype: Of the result.
        channels_last: Lay each image out channels last; of five dimensions, the first two flattened are so.

    Raises:
        InputError: Images that are not uint8.
    """
    if images.dtype != torch.uint8:
        raise InputError("uint8 images", f"{images.dtype} images", "pass pixels of 0 to 255 as uint8")
    flat = images.flatten(0, -4)
    scale = (255.0 * std.float()).reciprocal().view(3, 1, 1)
    shift = (mean.float() / std.float()).view(3, 1, 1)
    pixels = flat.to(torch.float32).mul_(scale).sub_(shift)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return pixels.to(dtype, memory_format=layout).view(images.shape)


def _check(images: Tensor, uniforms: Tensor, n_uniforms: int) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise InputError(
            "uint8 images (B, 3, H, W)", f"{images.dtype} {tuple(images.shape)}", "augment before `normalize`"
        )
    if uniforms.shape != (len(images), n_uniforms) or uniforms.device.type != "cpu":
        raise InputError(
            f"uniforms ({len(images)}, {n_uniforms}) on the CPU",
            f"{tuple(uniforms.shape)} on {uniforms.device}",
            "pass the images' rows of draw(n_global, generator)",
        )
