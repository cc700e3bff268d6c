"""What every step is made of: a choice out of n from a uniform number, and a function applied to some of the images.

For speed on CPUs, here and in the steps: images are selected as rows (copied whole), and pixels are masked by
arithmetic, which is vectorised where torch.where, masked_fill and index_copy are not and take 3 to 80 times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rebalance.errors import InputError
from rebalance.transfer import send


def check_share(p: float) -> None:
    """Refuse a share outside [0, 1].

    Raises:
        InputError: Such a share.
    """
    if not 0.0 <= p <= 1.0:
        raise InputError("a share of the images in [0, 1]", f"{p:g}", "use for example 0.5")


def choose(uniform: Tensor, n: int | Tensor) -> Tensor:
    """⌊n · u⌋, int64: one of 0 … n - 1, all equally likely.

    Float32 never rounds n · u up to n for the u < 1 that torch draws.
    """
    return (uniform * n).long()


def send_rows(parameters: Tensor, device: torch.device) -> Tensor:
    """`parameters`, one a row, moved to the images' device without waiting, and shaped (B, 1, 1, 1) to meet them."""
    return send(parameters.view(-1, 1, 1, 1), device)


def on_rows(images: Tensor, chosen: Tensor, function: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """`images` with `function` applied to the chosen ones; `chosen` is bool, (B,), the rest as for `on_groups`."""
    return on_groups(images, chosen.byte(), {1: function}, *parameters)


def on_groups(
    images: Tensor, group: Tensor, functions: Mapping[int, Callable[..., Tensor]], *parameters: Tensor
) -> Tensor:
    """`images` with `functions[g]` applied to those of group g; those of a group without a function stay.

    Args:
        images: (B, 3, H, W), on any device; left as they are.
        group: Integers (B,), on the CPU: which images the device works on is known without asking it.
        functions: (images, *parameters) → images of the same shape, for any number of them.
        parameters: CPU tensors with one row for each of the B images; a function gets its own rows, still on the CPU.
    """
    source = torch.arange(len(images))
    parts, n = [images], len(images)
    for key, function in functions.items():
        rows = (group == key).nonzero().squeeze(1)
        if rows.numel() == len(images):
            return function(images, *parameters)
        if rows.numel() > 0:
            there = send(rows, images.device)
            parts.append(function(images.index_select(0, there), *(parameter[rows] for parameter in parameters)))
            source[rows] = torch.arange(n, n + len(rows))
            n += len(rows)
    if len(parts) == 1:
        return images
    return torch.cat(parts).index_select(0, send(source, images.device))


def to_uint8(pixels: Tensor) -> Tensor:
    """Float pixels of any shape on the scale 0 to 255, rounded; what is beyond is clipped."""
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


def luma(pixels: Tensor) -> Tensor:
    """Grey value of float pixels (B, 3, H, W) → (B, 1, H, W), by ITU-R 601 as PIL and torchvision round its weights."""
    return pixels[:, :1].mul(0.2989).add_(pixels[:, 1:2], alpha=0.587).add_(pixels[:, 2:], alpha=0.114)
