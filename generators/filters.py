"""Keep or drop, with a reason: one verdict over a class's candidates, in plan order.

Cheap gates come first. Distances are compared with what real images show of one another, never with a fixed number; and
a low confidence in the target class is no reason, since the classifier that would say so is biased against the very
classes that are filled.

    finite     every pixel is a number
    flat       pixel standard deviation at least 2 % of the range
    copy       not the same as a training image of the class, or as an earlier kept one
    distance   features no farther from the class's real images than real images usually are
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from generators.manifest import KEPT, REJECTED, SPARE
from generators.neighbours import mean_distance, nearest

GATES = ("flat", "copy", "distance")
FLAT = 0.02
_BLOCK = 256
LOOSER = 1.05
"""Factor by which the distance gate is wider than the real images' quantile, and of each step that loosens it."""


@dataclass(frozen=True)
class Candidates:
    """The candidates of one class, in plan order.

    Args:
        pixels: (K, 3, H, W) in [0, 1]; anything where not finite.
        features: Unit vectors (K, D).
        finite: (K,) bool.
    """

    pixels: Tensor
    features: Tensor
    finite: Tensor


@dataclass(frozen=True)
class RealImages:
    """The class's own real images, and what they say.

    Args:
        pixels: (N, 3, H, W) in [0, 1].
        features: Unit vectors (N, D).
        limit: Largest usual feature distance.
        last_limit: Beyond which the gate is not loosened.
        copy_limit: Pixel distance at which two images count as one.
    """

    pixels: Tensor
    features: Tensor
    limit: float
    last_limit: float
    copy_limit: float


@dataclass(frozen=True)
class Verdicts:
    """What became of each candidate of a class.

    Args:
        verdict: "kept", "rejected", or "spare": good, but not needed any more; (K,).
        reason: The gate that rejected it, or nothing; (K,).
        distance: Feature distance to the class's real images; (K,).
        copy_distance: Pixel distance to the nearest real image; (K,).
        nearest_real: Which real image of the class that is; (K,).
        limit: The distance gate that was applied in the end.
    """

    verdict: list[str]
    reason: list[str]
    distance: list[float]
    copy_distance: list[float]
    nearest_real: list[int]
    limit: float

    @property
    def n_kept(self) -> int:
        """Kept candidates."""
        return self.verdict.count(KEPT)


def judge(
    candidates: Candidates,
    real: RealImages,
    wanted: int,
    *,
    floor: float,
    skip: Collection[str] = (),
    final: bool = True,
) -> Verdicts:
    """Verdicts over one class.

    Args:
        candidates: In plan order; the first that pass are kept.
        real: The class's real images.
        wanted: How many are kept at most.
        floor: Share of `wanted` for whose sake the distance gate is loosened, step by step.
        skip: Gates that are left out.
        final: Whether no more candidates will come; the gate is loosened only then.
    """
    distance = torch.nan_to_num(mean_distance(candidates.features, real.features), nan=2.0)
    flat_real, flat_candidates = real.pixels.flatten(1), candidates.pixels.nan_to_num().flatten(1)
    copy_distance, nearest_real = nearest(flat_candidates, flat_real)
    mirrored, nearest_mirrored = nearest(candidates.pixels.nan_to_num().flip(3).flatten(1), flat_real)
    nearest_real = torch.where(mirrored < copy_distance, nearest_mirrored, nearest_real)
    copy_distance = torch.minimum(copy_distance, mirrored)
    reasons = _cheap_gates(candidates, copy_distance, real.copy_limit, skip)
    limit = real.limit * LOOSER
    verdict, reason = _walk(flat_candidates, reasons, distance, limit, real.copy_limit, wanted, skip)
    while final and "distance" not in skip and verdict.count(KEPT) < math.ceil(floor * wanted):
        if not limit < limit * LOOSER <= real.last_limit:  # also where real images do not differ and the limit is 0
            break
        limit *= LOOSER
        verdict, reason = _walk(flat_candidates, reasons, distance, limit, real.copy_limit, wanted, skip)
    return Verdicts(verdict, reason, distance.tolist(), copy_distance.tolist(), nearest_real.tolist(), limit)


def _cheap_gates(candidates: Candidates, copy_distance: Tensor, copy_limit: float, skip: Collection[str]) -> list[str]:
    """The reason each candidate falls for by itself, or nothing."""
    spread = candidates.pixels.nan_to_num().flatten(1).std(dim=1)
    reasons = []
    for finite, std, gap in zip(candidates.finite.tolist(), spread.tolist(), copy_distance.tolist(), strict=True):
        if not finite:
            reasons.append("not finite")
        elif std < FLAT and "flat" not in skip:
            reasons.append("flat")
        elif gap <= copy_limit and "copy" not in skip:
            reasons.append("copy of a training image")
        else:
            reasons.append("")
    return reasons


def _walk(
    pixels: Tensor,
    reasons: list[str],
    distance: Tensor,
    limit: float,
    copy_limit: float,
    wanted: int,
    skip: Collection[str],
) -> tuple[list[str], list[str]]:
    """Go through the candidates in order, with those kept so far to compare with."""
    verdict: list[str] = []
    reason: list[str] = []
    kept = torch.zeros(0, dtype=torch.int64)
    for start in range(0, len(reasons), _BLOCK):
        block = torch.arange(start, min(start + _BLOCK, len(reasons)))
        to_kept = nearest(pixels[block], pixels[kept])[0]
        within = torch.cdist(pixels[block], pixels[block]) / pixels.shape[1] ** 0.5
        new: list[int] = []  # kept of this block, by their place in it
        for j, i in enumerate(block.tolist()):
            why = reasons[i]
            if not why and "distance" not in skip and distance[i] > limit:
                why = "far from the real images"
            if not why and "copy" not in skip:
                gap = min([float(to_kept[j]), *within[j, new].tolist()])
                why = "copy of a kept image" if gap <= copy_limit else ""
            full = len(kept) + len(new) >= wanted
            verdict.append(REJECTED if why else SPARE if full else KEPT)
            reason.append(why)
            if verdict[-1] == KEPT:
                new.append(j)
        kept = torch.cat([kept, block[new]])
    return verdict, reason
