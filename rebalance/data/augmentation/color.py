"""What colours become: jitter of brightness, contrast, saturation and hue, grey images, blur."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from rebalance.data.augmentation.rows import check_share, choose, luma, on_rows, send_rows, to_uint8
from rebalance.errors import InputError
from rebalance.transfer import send

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
TINY = 1e-30
ORDERS = torch.tensor(list(permutations(range(4))))  # (24, 4)


@final
@dataclass(frozen=True)
class Jitter:
    """Brightness, contrast, saturation and hue changed by random amounts, in an order that is random for each image.

    The four follow torchvision's ColorJitter on float images: not rounded in between, clamped after each.

    Args:
        strength: Factors of the first three are uniform in [max(0, 1 - strength), 1 + strength].
        hue: The hue turns by a share of the circle that is uniform in [-hue, hue].
        p: Share of the images.
    """

    strength: float = 0.4
    hue: float = 0.1
    p: float = 0.8
    n_uniforms = 6

    def __post_init__(self) -> None:
        check_share(self.p)
        if not (self.strength >= 0 and 0 <= self.hue <= 0.5):
            raise InputError("strength >= 0 and hue in [0, 0.5]", repr(self), "write for example jitter:0.4:0.1:0.8")

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Images, a share of them in other colours."""
        low = max(0.0, 1.0 - self.strength)
        factors = low + (1.0 + self.strength - low) * uniforms[:, 2:5]
        turn = self.hue * (2.0 * uniforms[:, 5] - 1.0)
        order = ORDERS[choose(uniforms[:, 1], len(ORDERS))]
        return on_rows(images, uniforms[:, 0] < self.p, jitter, order, factors, turn)


def jitter(images: Tensor, order: Tensor, factors: Tensor, turn: Tensor) -> Tensor:
    """`images` changed by `factors` (B, 3) and `turn` (B,), in the `order` (B, 4) of BRIGHTNESS … HUE.

    Brightness, contrast and saturation are one formula, f · pixels + (1 - f) · reference, whose reference is black, the
    mean grey, or each pixel's own grey. Hue is turned once for all images: three turns of the formula before it and
    three after it, idle (f = 1) for the images whose order puts them on the other side.
    """
    three = order[order != HUE].view(-1, 3)
    first = (order == HUE).int().argmax(dim=1, keepdim=True) > torch.arange(3)
    factor = factors.gather(1, three)
    factor = torch.cat([torch.where(first, factor, 1.0), torch.where(first, 1.0, factor)], dim=1)  # (B, 6)
    rest, kind = 1.0 - factor, three.repeat(1, 2)
    terms = [factor, torch.where(kind == SATURATION, rest, 0.0), torch.where(kind == CONTRAST, rest, 0.0)]
    shares = send(torch.stack(terms), images.device)[..., None, None, None]  # (3, B, 6, 1, 1, 1)
    pixels = images.float()
    for place in range(6):
        if place == 3 and turn.any():
            pixels = turn_hue(pixels, send_rows(turn, images.device))
        of_pixels, of_grey, of_mean = shares[:, :, place]
        grey = luma(pixels)
        mean = grey.mean(dim=(2, 3), keepdim=True).mul_(of_mean)
        reference = grey.mul_(of_grey).add_(mean)
        pixels = pixels.mul_(of_pixels).add_(reference).clamp_(0, 255)
    return to_uint8(pixels)


def turn_hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """`pixels` with the hue turned by `turn` (B, 1, 1, 1) of the circle; value and saturation stay.

    With H the hue in sixths, V the largest and C = V - min the range of a pixel's channels,

        channel n of the result = V - C · clamp(2 - |k - 2|, 0, 1),   k = (n + H + 6 · turn) mod 6,   n = 5, 3, 1
    """
    red, green, blue = pixels.unbind(1)
    value = pixels.amax(dim=1)
    chroma = value - pixels.amin(dim=1)
    scale = chroma.clamp_min(TINY).reciprocal_()
    by_red = (green - blue).mul_(scale)
    by_green = (blue - red).mul_(scale).add_(2.0)
    by_blue = (red - green).mul_(scale).add_(4.0)
    not_red = (value - red).div_(TINY).clamp_(max=1.0)  # 0 where red is the largest channel, else 1
    not_green = (value - green).div_(TINY).clamp_(max=1.0)
    hue = by_red.lerp_(by_green.lerp_(by_blue, not_green), not_red)
    channel = torch.arange(5.0, 0.0, -2.0, device=pixels.device).view(3, 1, 1)
    k = hue[:, None] + (channel + 6.0 * turn)
    k.sub_((k / 6.0).floor_(), alpha=6.0)
    share = k.sub_(2.0).abs_().neg_().add_(2.0).clamp_(0.0, 1.0)
    return share.mul_(chroma[:, None]).neg_().add_(value[:, None])


@final
@dataclass(frozen=True)
class Gray:
    """Removes the colour.

    Args:
        p: Share of the images.
    """

    p: float = 0.2
    n_uniforms = 1

    def __post_init__(self) -> None:
        check_share(self.p)

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Images, a share of them without colour."""
        return on_rows(images, uniforms[:, 0] < self.p, grayscale)


def grayscale(images: Tensor) -> Tensor:
    """uint8 images (B, 3, H, W) without colour, still of three channels."""
    return to_uint8(luma(images.float())).repeat(1, 3, 1, 1)


SIGMA = (0.1, 2.0)
RADIUS = 6  # three standard deviations of the widest


@final
@dataclass(frozen=True)
class Blur:
    """Gaussian blur with a standard deviation uniform in [0.1, 2] pixels, mirrored at the border.

    The range is MoCo v2's (Chen et al. 2020), which SimAugment takes over in pixels at every size; the kernel is a true
    Gaussian, 13 wide (smaller where the image is), as torchvision's, where PIL has three box blurs.

    Args:
        p: Share of the images.
    """

    p: float = 0.5
    n_uniforms = 2

    def __post_init__(self) -> None:
        check_share(self.p)

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Images, a share of them blurred."""
        sigma = SIGMA[0] + (SIGMA[1] - SIGMA[0]) * uniforms[:, 1]
        return on_rows(images, uniforms[:, 0] < self.p, blur, sigma)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """`images` blurred with standard deviations `sigma` (B,)."""
    height, width = images.shape[-2:]
    radius = min(RADIUS, height - 1, width - 1)
    distance = torch.arange(radius + 1)
    weights = torch.exp(-0.5 * (distance / sigma[:, None]).square())
    weights = weights / (2.0 * weights.sum(dim=1, keepdim=True) - weights[:, :1])  # all but the centre count twice
    weights = send(weights, images.device)
    with torch.autocast(images.device.type, enabled=False):
        lines = images.float().transpose(1, 2).reshape(-1, height, 3 * width)
        lines = (_blur_matrix(height, weights) @ lines).view(-1, 3 * height, width)  # rows of (H, 3)
        pixels = (lines @ _blur_matrix(width, weights).mT).view(-1, height, 3, width)
    return to_uint8(pixels.transpose(1, 2).contiguous())


def _blur_matrix(size: int, weights: Tensor) -> Tensor:
    """Blur along a side as a matrix (B, size, size), from kernel weights by distance (B, radius + 1)."""
    by_distance = F.pad(weights, (0, 2 * size - weights.shape[1]))  # (B, 2 size)
    both_sides = torch.cat([by_distance[:, 1:size].flip(1), by_distance[:, :size]], dim=1)
    direct = both_sides.unfold(1, size, 1).flip(1)  # element (i, j) is the weight of |i - j|
    mirrored = by_distance.unfold(1, size, 1)[:, :size].clone()  # of i + j, which is j mirrored at 0
    mirrored[:, :, 0] = 0.0  # pixel 0 has no mirror image of its own
    return direct + mirrored + mirrored.flip(1, 2)
