"""Images → 64 bits that stay much the same when an image is re-encoded, resized or slightly changed.

    bit_uv = [c_uv > median of all c but c_00],  c = DCT-II of the grey image at 32 × 32 px,  u, v < 8

Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1 (pHash).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BITS = 64
SMALLEST = 32
"""Height of images, px, from which hashes are taken: below, 64 frequencies are all there is, and unlike images of one
class agree in most of them."""
_GREY = (0.299, 0.587, 0.114)
_SIDE = 8
_BLOCK = 2048


def perceptual_hashes(images: Tensor) -> Tensor:
    """Hashes (N, 64), each bit as -1 or 1, of uint8 images (N, 3, H, W)."""
    parts = [torch.zeros((0, BITS), dtype=torch.int8)]
    for part in torch.split(images, _BLOCK):
        grey = (part.float().cpu() * torch.tensor(_GREY).view(3, 1, 1)).sum(dim=1, keepdim=True)
        if grey.shape[-2:] != (SMALLEST, SMALLEST):
            size = (SMALLEST, SMALLEST)
            grey = F.interpolate(grey, size=size, mode="bilinear", antialias=True, align_corners=False)
        rows = _cosines()
        coefficients = (rows @ grey[:, 0] @ rows.T).flatten(1)
        median = coefficients[:, 1:].median(dim=1, keepdim=True).values
        parts.append(torch.where(coefficients > median, 1, -1).to(torch.int8))
    return torch.cat(parts)


def hamming(queries: Tensor, references: Tensor) -> Tensor:
    """Differing bits (Q, R) between hashes (Q, 64) and (R, 64)."""
    return (BITS - queries.float() @ references.float().T) / 2


def nearest_hash(queries: Tensor, references: Tensor, *, exclude_self: bool = False) -> Tensor:
    """Differing bits (Q,) between each query and the reference that is most like it; 64 without references.

    Args:
        queries: (Q, 64).
        references: (R, 64).
        exclude_self: Query i is reference i, and not compared with itself.
    """
    found = [torch.zeros(0)]
    known = references.float()
    for start in range(0, len(queries), _BLOCK):
        part = queries[start : start + _BLOCK].float()
        agreement = torch.full((len(part),), -float(BITS))
        for first in range(0, len(known), _BLOCK):
            alike = part @ known[first : first + _BLOCK].T
            if exclude_self and first == start:
                alike.fill_diagonal_(-float(BITS))
            agreement = torch.maximum(agreement, alike.amax(dim=1))
        found.append((BITS - agreement) / 2)
    return torch.cat(found)


def hash_limit(hashes: Tensor, members: list[Tensor], largest: int, share: float = 0.01) -> int:
    """Up to how many differing bits two images may count as one: `largest`, or fewer; -1 for not even equal hashes.

    Fewer where more than `share` of the real images have another of their class as near as that; equal hashes among
    them do not count, since the same image twice is no reason to think that different ones are alike.

    Args:
        hashes: Of the real images, (N, 64).
        members: Rows of each class.
        largest: Bits.
        share: Of the real images.
    """
    unique = [torch.unique(hashes[rows], dim=0) for rows in members if len(rows) > 1]
    gaps = torch.cat([torch.zeros(0), *(nearest_hash(own, own, exclude_self=True) for own in unique if len(own) > 1)])
    for limit in range(largest, -1, -1):
        if len(gaps) == 0 or float((gaps <= limit).double().mean()) <= share:
            return limit
    return -1


def _cosines() -> Tensor:
    """The first rows (8, 32) of the orthonormal DCT-II."""
    place = (torch.arange(SMALLEST, dtype=torch.float64) + 0.5) * math.pi / SMALLEST
    rows = torch.cos(torch.arange(_SIDE, dtype=torch.float64)[:, None] * place) * math.sqrt(2 / SMALLEST)
    rows[0] /= math.sqrt(2)
    return rows.float()
