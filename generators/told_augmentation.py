"""Augmentation that the network is told of, so that what it makes is not augmented.

With few images a diffusion model soon learns them by heart. Turned, scaled and moved copies are more to learn from, but
a model trained on them makes turned, scaled and moved images. So every image comes with the numbers that say what was
done to it, as constant channels beside its own, and sampling sets all of them to 0.
Source: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, NeurIPS 2022, appendix F.2,
whose rates and spreads these are; NVlabs/edm, training/augment.py. Told augmentation is also in Qin et al., CVPR 2023.

Deviations: the numbers enter beside the pixels, not beside the noise level, so that the U-Net is diffusers' own;
stretching is along the axes; pixels are read bilinearly, without a low-pass filter, whose trace the network is told of
all the same. Mirroring, which need not be told, is the caller's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

N_NUMBERS = 7
"""Upside down (0 or 1), log2 of scale and of stretch, cos - 1 and sin of the turn, right and down in half sizes."""

_OCTAVES = 0.2  # standard deviation of scale and stretch
_MOVE = 0.25  # standard deviation of both moves, in half sizes: an eighth of the image


def draw_numbers(n: int, share: float, generator: torch.Generator) -> Tensor:
    """What is done to `n` images (n, 7).

    Args:
        n: Number of images.
        share: Of the images that each of the five transformations is done to.
        generator: On the CPU.
    """
    upside_down, scale, stretch, turn, move = (torch.rand((5, n), generator=generator) < share).float()
    octaves = _OCTAVES * torch.randn((2, n), generator=generator)
    angle = turn * math.pi * (2 * torch.rand(n, generator=generator) - 1)
    right, down = move * _MOVE * torch.randn((2, n), generator=generator)
    numbers = [upside_down, scale * octaves[0], stretch * octaves[1], angle.cos() - 1, angle.sin(), right, down]
    return torch.stack(numbers, dim=1)


def transform(images: Tensor, numbers: Tensor) -> Tensor:
    """Images (B, C, H, W), float, changed as `numbers` (B, 7) say; those of zeros alone are handed back as they are."""
    upside_down, scale, stretch, cosine, sine, right, down = numbers.unbind(1)
    cosine = cosine + 1
    width, height = torch.exp2(-scale - stretch), torch.exp2(-scale + stretch)  # where a pixel of the result comes from
    height = height * (1 - 2 * upside_down)
    rows = [
        torch.stack([cosine * width, sine * width, -(cosine * right + sine * down) * width], dim=1),
        torch.stack([-sine * height, cosine * height, (sine * right - cosine * down) * height], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    changed = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return torch.where(numbers.any(dim=1).view(-1, 1, 1, 1), changed, images)


def tell(images: Tensor, numbers: Tensor | None) -> Tensor:
    """Images (B, C, H, W) with the numbers (B, 7) as channels (B, C + 7, H, W); with None with zeros."""
    if numbers is None:
        return F.pad(images, (0, 0, 0, 0, 0, N_NUMBERS))
    channels = numbers.to(images.dtype)[:, :, None, None].expand(-1, -1, *images.shape[2:])
    return torch.cat([images, channels], dim=1)
