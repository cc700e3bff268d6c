"""The operations that augmentation policies choose from, one of them and one magnitude for each image.

Each follows torchvision's tensor function on uint8 images: nearest pixels, results cut to whole numbers (not rounded).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rebalance.data.augmentation.rows import luma, on_groups, send_rows
from rebalance.transfer import send

OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
    "Invert",
)

IDENTITY, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, ROTATE = range(6)


def apply_operations(images: Tensor, operation: Tensor, magnitude: Tensor, fill: int = 0) -> Tensor:
    """Image i changed by operation i with magnitude i.

    Args:
        images: uint8, (B, 3, H, W), on any device; left as they are.
        operation: Indices into OPERATIONS, int64 (B,), on the CPU.
        magnitude: float32 (B,), on the CPU: shear as a tangent, translation in pixels, rotation in degrees, a factor
            less 1 for the four enhancements, the bits that posterize keeps, the lowest value that solarize inverts.
        fill: Value of the pixels that shear, translation and rotation bring in.
    """
    moved = (operation >= SHEAR_X) & (operation <= ROTATE)
    functions = {SHEAR_X: partial(_move, fill=fill)} | _RECOLOURINGS
    return on_groups(images, operation.masked_fill(moved, SHEAR_X), functions, magnitude, operation)


def _move(images: Tensor, magnitude: Tensor, operation: Tensor, *, fill: int) -> Tensor:
    """Nearest pixels at x' = a x + b y + c, y' = d x + a y + f, where (x, y) is a centre, from the top left corner."""
    height, width = images.shape[-2:]
    zero = torch.zeros_like(magnitude)
    angle = torch.deg2rad(torch.where(operation == ROTATE, magnitude, zero))
    cos, sin = angle.cos(), angle.sin()
    b = torch.where(operation == SHEAR_X, magnitude, -sin)
    d = torch.where(operation == SHEAR_Y, magnitude, sin)
    turn_x = 0.5 * (width - width * cos + height * sin)  # rotation is about the centre, shear about the corner
    turn_y = 0.5 * (height - width * sin - height * cos)
    c = torch.where(operation == TRANSLATE_X, -magnitude.trunc(), turn_x)
    f = torch.where(operation == TRANSLATE_Y, -magnitude.trunc(), turn_y)
    a, b, c, d, f = send(torch.stack([cos, b, c, d, f]).view(5, -1, 1, 1), images.device)
    x = torch.arange(width, device=images.device) + 0.5
    y = (torch.arange(height, device=images.device) + 0.5)[:, None]
    column = (a * x + b * y + c).floor_().clamp_(-1, width)  # (B, H, W); what lies outside meets a border of `fill`
    row = (d * x + a * y + f).floor_().clamp_(-1, height)
    source = row.mul_(width + 2).add_(column).add_(width + 3).long()
    framed = F.pad(images, (1, 1, 1, 1), value=fill)
    return framed.flatten(2).gather(2, source.flatten(1)[:, None].expand(-1, 3, -1)).view_as(images)


def _brightness(images: Tensor, magnitude: Tensor, *_: Tensor) -> Tensor:
    factor = (1.0 + magnitude.double()).float()
    return images.mul(send_rows(factor, images.device)).clamp_(0, 255).to(torch.uint8)


def _color(images: Tensor, magnitude: Tensor, *_: Tensor) -> Tensor:
    pixels = images.float()
    return _blend(pixels, luma(pixels).floor_(), magnitude)


def _contrast(images: Tensor, magnitude: Tensor, *_: Tensor) -> Tensor:
    pixels = images.float()
    mean = luma(pixels).floor_().mean(dim=(2, 3), keepdim=True)
    return _blend(pixels, mean, magnitude)


def _sharpness(images: Tensor, magnitude: Tensor, *_: Tensor) -> Tensor:
    """Away from the 3 × 3 mean whose centre counts five times; the outermost pixels stay."""
    if min(images.shape[-2:]) <= 2:
        return images
    pixels = images.float()
    lines = pixels[..., :-2] + pixels[..., 1:-1] + pixels[..., 2:]
    smooth = lines[..., :-2, :] + lines[..., 1:-1, :] + lines[..., 2:, :]
    inner = pixels[..., 1:-1, 1:-1]
    smooth.add_(inner, alpha=4).div_(13).round_()
    result = images.clone()
    result[..., 1:-1, 1:-1] = (inner - smooth.sub_(inner).mul_(send_rows(magnitude, images.device))).clamp_(0, 255)
    return result


def _blend(pixels: Tensor, reference: Tensor, magnitude: Tensor) -> Tensor:
    """(1 + m) · pixels - m · reference."""
    m = send_rows(magnitude, pixels.device)
    return (pixels * (1.0 + m)).sub_(reference * m).clamp_(0, 255).to(torch.uint8)


def _posterize(images: Tensor, magnitude: Tensor, *_: Tensor) -> Tensor:
    kept = 256 - 2 ** (8 - magnitude.long())
    return images & send_rows(kept.to(torch.uint8), images.device)


def _solarize(images: Tensor, magnitude: Tensor, *_: Tensor) -> Tensor:
    bright = (images >= send_rows(magnitude, images.device)).to(torch.uint8)
    return images ^ bright.mul_(255)


def _auto_contrast(images: Tensor, *_: Tensor) -> Tensor:
    """Each channel stretched to 0 … 255; a channel of one value stays."""
    low = images.amin(dim=(2, 3), keepdim=True).float()
    high = images.amax(dim=(2, 3), keepdim=True).float()
    flat = high == low
    scale = ((high - low) * (1.0 / 255.0)).masked_fill_(flat, 1.0)
    return (images - low.masked_fill_(flat, 0.0)).div_(scale).clamp_(0, 255).to(torch.uint8)


def _equalize(images: Tensor, *_: Tensor) -> Tensor:
    """Each channel through a table that evens out its histogram, PIL's way; a channel with too few values stays."""
    planes = len(images) * 3
    offset = 256 * torch.arange(planes, device=images.device)[:, None]
    index = images.view(planes, -1) + offset
    counts = torch.zeros(planes * 256, dtype=torch.int32, device=images.device)
    counts.scatter_add_(0, index.flatten(), counts.new_ones(1).expand(index.numel()))
    counts = counts.view(planes, 256)
    brightest = images.view(planes, -1).amax(dim=1, keepdim=True).long()
    step = (index.shape[1] - counts.gather(1, brightest)) // 255
    below = counts.cumsum(dim=1) - counts  # pixels darker than each value
    table = ((below + step // 2) // step.clamp_min(1)).clamp_(0, 255)
    table += (step == 0) * (torch.arange(256, device=images.device) - table)
    return table.to(torch.uint8).flatten().index_select(0, index.flatten()).view_as(images)


def _invert(images: Tensor, *_: Tensor) -> Tensor:
    return images ^ 255


_RECOLOURINGS: dict[int, Callable[..., Tensor]] = {
    OPERATIONS.index("Brightness"): _brightness,
    OPERATIONS.index("Color"): _color,
    OPERATIONS.index("Contrast"): _contrast,
    OPERATIONS.index("Sharpness"): _sharpness,
    OPERATIONS.index("Posterize"): _posterize,
    OPERATIONS.index("Solarize"): _solarize,
    OPERATIONS.index("AutoContrast"): _auto_contrast,
    OPERATIONS.index("Equalize"): _equalize,
    OPERATIONS.index("Invert"): _invert,
}
