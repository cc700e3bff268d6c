"""Where pixels come from: padded crop, mirror, cutout, and the crop that is resized back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from rebalance.data.augmentation.rows import check_share, choose, on_rows, send_rows, to_uint8
from rebalance.errors import InputError
from rebalance.transfer import send


@final
@dataclass(frozen=True)
class Crop:
    """Pads with black on all sides and crops back to the size: the CIFAR recipe with 4 pixels at 32.

    Args:
        pad: Width of the border.
    """

    pad: int
    n_uniforms = 2

    def __post_init__(self) -> None:
        if self.pad < 1:
            raise InputError("a border of at least 1 pixel", f"crop:{self.pad}", "leave the crop out, or widen it")

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Images moved by up to `pad` pixels each way."""
        top, left = choose(uniforms, 2 * self.pad + 1).unbind(1)
        return crop(images, top, left, self.pad)


def crop(images: Tensor, top: Tensor, left: Tensor, pad: int) -> Tensor:
    """The windows of the padded images that begin at (top, left), each (B,) in 0 … 2 · pad."""
    n, channels, height, width = images.shape
    padded = F.pad(images, (pad, pad, pad, pad))
    line = width + 2 * pad
    plane = (height + 2 * pad) * line
    # Every window of the flat memory as a view: selecting from it copies rows, five times faster than indexing pixels.
    n_windows = padded.numel() - (height - 1) * line - width + 1
    windows = padded.as_strided((max(n_windows, 0), height, width), (1, line, 1))
    first = torch.arange(n * channels).view(n, channels) * plane + (top * line + left)[:, None]
    return windows.index_select(0, send(first.flatten(), images.device)).view_as(images)


@final
@dataclass(frozen=True)
class Flip:
    """Mirrors left and right.

    Args:
        p: Share of the images.
    """

    p: float = 0.5
    n_uniforms = 1

    def __post_init__(self) -> None:
        check_share(self.p)

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Images, a share of them mirrored."""
        return on_rows(images, uniforms[:, 0] < self.p, lambda some: some.flip(-1))


@final
@dataclass(frozen=True)
class Cutout:
    """Blackens a square whose centre is anywhere in the image; what lies outside is cut off.

    DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017.

    Args:
        side: Of the square, in pixels; 16 at 32 pixels in the long-tail recipes.
    """

    side: int
    n_uniforms = 2

    def __post_init__(self) -> None:
        if self.side < 1:
            raise InputError("a square of at least 1 pixel", f"cutout:{self.side}", "leave the cutout out, or widen it")

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Images with a hole."""
        height, width = images.shape[-2:]
        top = send_rows(choose(uniforms[:, 0], height) - self.side // 2, images.device)
        left = send_rows(choose(uniforms[:, 1], width) - self.side // 2, images.device)
        y = torch.arange(height, device=images.device).view(-1, 1)
        x = torch.arange(width, device=images.device)
        hole = ((y >= top) & (y < top + self.side)) & ((x >= left) & (x < left + self.side))  # (B, 1, H, W)
        return images * ~hole


ATTEMPTS = 10
RATIO = (3.0 / 4.0, 4.0 / 3.0)


@final
@dataclass(frozen=True)
class ResizedCrop:
    """Crops a share of the area with an aspect ratio from 3/4 to 4/3 and resizes it back, bilinearly.

    Parameters are drawn as torchvision's RandomResizedCrop draws them: the first of ten candidates that fits, else the
    largest centred crop of an allowed ratio. A crop is only ever enlarged, so there is nothing to antialias.

    Args:
        scale: Smallest share of the area; 0.2 in MoCo and the long-tail recipes at 32 pixels, 0.08 in torchvision.
    """

    scale: float = 0.2
    n_uniforms = 2 * ATTEMPTS + 2

    def __post_init__(self) -> None:
        if not 0.0 < self.scale <= 1.0:
            raise InputError("a smallest share in (0, 1]", f"resizedcrop:{self.scale:g}", "use for example 0.08 or 0.2")

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Enlarged crops."""
        return resized_crop(images, self.boxes(uniforms, images.shape[-2], images.shape[-1]))

    def boxes(self, uniforms: Tensor, height: int, width: int) -> Tensor:
        """Top, left, height and width of the crops, (B, 4), whole numbers in float32."""
        low, high = math.log(RATIO[0]), math.log(RATIO[1])
        area = height * width * (self.scale + (1.0 - self.scale) * uniforms[:, :ATTEMPTS])
        ratio = torch.exp(low + (high - low) * uniforms[:, ATTEMPTS : 2 * ATTEMPTS])
        size = torch.stack([(area / ratio).sqrt().round(), (area * ratio).sqrt().round()])  # (2, B, attempts)
        whole = torch.tensor([float(height), float(width)])
        fits = ((size > 0) & (size <= whole.view(2, 1, 1))).all(dim=0)
        first = fits.byte().argmax(dim=1, keepdim=True)
        drawn = size.gather(2, first.expand(2, -1, 1)).squeeze(2).T  # (B, 2)
        largest = torch.minimum(whole, (whole.flip(0) * RATIO[1]).round())
        found = fits.any(dim=1, keepdim=True)
        size = torch.where(found, drawn, largest)
        corner = torch.where(found, choose(uniforms[:, -2:], whole - size + 1), ((whole - size) / 2).long())
        return torch.cat([corner.float(), size], dim=1)


def resized_crop(images: Tensor, boxes: Tensor) -> Tensor:
    """The crops `boxes` (B, 4), as of `ResizedCrop.boxes`, resized to the size of the images."""
    height, width = images.shape[-2:]
    top, left, box_height, box_width = send(boxes, images.device).view(-1, 4, 1).unbind(1)
    y = _source(height, top, box_height)  # (B, H)
    x = _source(width, left, box_width)
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3)
    return to_uint8(F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False))


def _source(size: int, start: Tensor, length: Tensor) -> Tensor:
    """Where the pixels of a resized side lie in the original, in grid_sample's units; never outside the crop."""
    centre = torch.arange(size, device=start.device) + 0.5
    position = torch.minimum(torch.maximum(start + centre * (length / size), start + 0.5), start + length - 0.5)
    return position * (2.0 / size) - 1.0
