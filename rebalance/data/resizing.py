"""Stacks of images at another size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 1024  # images that are held as floats at a time


def resize_images(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Images at another size, bicubic and antialiased; those that have it already are handed back as they are.

    Args:
        images: (N, C, H, W), uint8 or floating in [0, 1].
        size: (height, width), or the side of a square.

    Returns:
        (N, C, height, width) of the same dtype; uint8 is rounded, what overshoots is clipped.
    """
    size = (size, size) if isinstance(size, int) else size
    if images.shape[-2:] == size:
        return images
    return torch.cat([_resize(part, size) for part in torch.split(images, _BLOCK)])


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    whole = images.dtype == torch.uint8
    scaled = F.interpolate(
        images.float() if whole else images, size=size, mode="bicubic", antialias=True, align_corners=False
    )
    return scaled.round().clamp(0, 255).byte() if whole else scaled.clamp(0, 1)
