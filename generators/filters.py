"""Keep or drop, with a reason: one verdict over a class's candidates, in plan order.

Cheap gates come first. Distances are compared with what real images show of one another, never with a fixed number; and
a low confidence in the target class is no reason, since the classifier that would say so is biased against the very
classes that are filled.

    (failure)    the generator gave an image: finite, decodable, and not objected to by its safety checker
    flat         pixel standard deviation at least 2 % of the range
    duplicate    not the pixels of a training image, or of an earlier kept one
    hash         perceptual hash not near that of a training image, or of an earlier kept one
    copy         pixels not near those of a training image of the class, or of an earlier kept one
    distance     features no farther from the class's real images than real images usually are
    third-class  the classifier is not sure of a class that is neither the target nor its usual confusion
    text         CLIP agrees with the class's name as it does for the class's real images
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from generators.manifest import KEPT, REJECTED, SPARE
from generators.neighbours import mean_distance, nearest
from generators.perceptual_hash import hamming, nearest_hash

GATES = ("flat", "duplicate", "hash", "copy", "distance", "third-class", "text")
FLAT = 0.02
_BLOCK = 256
LOOSER = 1.05
"""Factor by which the distance gate is wider than the real images' quantile, and of each step that loosens it."""


@dataclass(frozen=True)
class Candidates:
    """The candidates of one class, in plan order.

    Args:
        pixels: (K, 3, H, W) in [0, 1]; anything where there is a failure.
        features: Unit vectors (K, D).
        failures: Why there is no image, or nothing; (K,).
        digests: Hash of the pixels of each, (K,); None if they are not compared.
        hashes: Perceptual hashes (K, 64), and those of the mirrored images; None if they are not compared.
        third_class: Probability of a class that is neither the target nor its usual confusion, (K,).
        agreement: CLIP's cosine to the text of the class, (K,).
    """

    pixels: Tensor
    features: Tensor
    failures: Sequence[str]
    digests: Sequence[bytes] | None = None
    hashes: tuple[Tensor, Tensor] | None = None
    third_class: Tensor | None = None
    agreement: Tensor | None = None


@dataclass(frozen=True)
class RealImages:
    """The class's own real images, and what they say.

    Args:
        pixels: (N, 3, H, W) in [0, 1].
        features: Unit vectors (N, D).
        limit: Largest usual feature distance.
        last_limit: Beyond which the gate is not loosened.
        copy_limit: Pixel distance at which two images count as one.
        digests: Hashes of the pixels of all training images, whatever their class.
        hashes: Perceptual hashes (M, 64) of all training images, whatever their class.
        hash_limit: Differing bits up to which two images count as one; -1 for none.
        third_class_limit: From which probability the third class is a reason.
        agreement_limit: Lowest usual agreement with the text of the class.
    """

    pixels: Tensor
    features: Tensor
    limit: float
    last_limit: float
    copy_limit: float
    digests: frozenset[bytes] = frozenset()
    hashes: Tensor | None = None
    hash_limit: int = -1
    third_class_limit: float = 1.0
    agreement_limit: float = -1.0


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
        loosened: Whether that is wider than what the real images say.
        more: Scores of the other gates by name, each (K,).
    """

    verdict: list[str]
    reason: list[str]
    distance: list[float]
    copy_distance: list[float]
    nearest_real: list[int]
    limit: float
    loosened: bool = False
    more: dict[str, list[float]] = field(default_factory=dict)

    @property
    def n_kept(self) -> int:
        """Kept candidates."""
        return self.verdict.count(KEPT)

    def scores(self, i: int) -> dict[str, Any]:
        """Everything that was measured of candidate `i`, for the manifest."""
        return {
            "distance": round(self.distance[i], 6),
            "limit": round(self.limit, 6),
            "copy_distance": round(self.copy_distance[i], 6),
            "nearest_real": self.nearest_real[i],
            **{name: round(values[i], 6) for name, values in self.more.items()},
        }


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
    scores = _measure(candidates, real)
    limit = real.limit * LOOSER
    verdict, reason = _walk(candidates, real, scores, limit, wanted, skip)
    need = math.ceil(floor * wanted) if final and "distance" not in skip else 0
    stale = False  # whether the limit has moved since the last walk
    # The step has to be one: where real images do not differ, the limit is 0.
    while verdict.count(KEPT) < need and limit < limit * LOOSER <= real.last_limit:
        before, limit = limit, limit * LOOSER
        stale = stale or bool(((scores.distance > before) & (scores.distance <= limit)).any())
        if stale and _own_reasons(candidates, real, scores, limit, skip).count("") >= need:
            verdict, reason = _walk(candidates, real, scores, limit, wanted, skip)
            stale = False
    if stale:
        verdict, reason = _walk(candidates, real, scores, limit, wanted, skip)
    return Verdicts(
        verdict,
        reason,
        scores.distance.tolist(),
        scores.copy_distance.tolist(),
        scores.nearest_real.tolist(),
        limit,
        limit > real.limit * LOOSER,
        scores.more(candidates),
    )


@dataclass(frozen=True)
class _Scores:
    """What is measured of each candidate by itself, each (K,)."""

    std: Tensor
    duplicate: list[bool]
    hash_distance: Tensor | None
    copy_distance: Tensor
    nearest_real: Tensor
    distance: Tensor

    def more(self, candidates: Candidates) -> dict[str, list[float]]:
        """The scores that are not there for all data."""
        named = {
            "hash_distance": self.hash_distance,
            "third_class": candidates.third_class,
            "agreement": candidates.agreement,
        }
        return {name: values.tolist() for name, values in named.items() if values is not None}


def _measure(candidates: Candidates, real: RealImages) -> _Scores:
    pixels, flat_real = candidates.pixels.nan_to_num(), real.pixels.flatten(1)
    copy_distance, nearest_real = nearest(pixels.flatten(1), flat_real)
    mirrored, nearest_mirrored = nearest(pixels.flip(3).flatten(1), flat_real)
    hash_distance = None
    if candidates.hashes is not None and real.hashes is not None:
        hash_distance = torch.minimum(*(nearest_hash(hashes, real.hashes) for hashes in candidates.hashes))
    return _Scores(
        std=pixels.flatten(2).std(dim=2).amax(dim=1),
        duplicate=[digest in real.digests for digest in candidates.digests or [b""] * len(pixels)],
        hash_distance=hash_distance,
        copy_distance=torch.minimum(copy_distance, mirrored),
        nearest_real=torch.where(mirrored < copy_distance, nearest_mirrored, nearest_real),
        distance=torch.nan_to_num(mean_distance(candidates.features, real.features), nan=2.0),
    )


def _own_reasons(
    candidates: Candidates, real: RealImages, scores: _Scores, limit: float, skip: Collection[str]
) -> list[str]:
    """The reason each candidate falls for by itself, or nothing."""
    none = torch.zeros(len(scores.std), dtype=torch.bool)
    hashes, third, agreement = scores.hash_distance, candidates.third_class, candidates.agreement
    gates: list[tuple[str, str, Tensor]] = [
        ("flat", "flat", scores.std < FLAT),
        ("duplicate", "duplicate of a training image", torch.tensor(scores.duplicate, dtype=torch.bool)),
        ("hash", "near-duplicate of a training image", none if hashes is None else hashes <= real.hash_limit),
        ("copy", "copy of a training image", scores.copy_distance <= real.copy_limit),
        ("distance", "far from the real images", ~(scores.distance <= limit)),
        ("third-class", "looks like a third class", none if third is None else third >= real.third_class_limit),
        ("text", "does not fit its class name", none if agreement is None else ~(agreement >= real.agreement_limit)),
    ]
    reasons = list(candidates.failures)
    for gate, words, falls in gates:
        if gate not in skip:
            reasons = [why or (words if fell else "") for why, fell in zip(reasons, falls.tolist(), strict=True)]
    return reasons


def _walk(
    candidates: Candidates, real: RealImages, scores: _Scores, limit: float, wanted: int, skip: Collection[str]
) -> tuple[list[str], list[str]]:
    """Go through the candidates in order, with those kept so far to compare with."""
    reasons = _own_reasons(candidates, real, scores, limit, skip)
    pixels = candidates.pixels.nan_to_num().flatten(1)
    digests = candidates.digests if "duplicate" not in skip else None
    hashes = candidates.hashes[0] if candidates.hashes is not None and "hash" not in skip else None
    verdict: list[str] = []
    reason: list[str] = []
    kept = torch.zeros(0, dtype=torch.int64)
    kept_digests: set[bytes] = set()
    for start in range(0, len(reasons), _BLOCK):
        block = torch.arange(start, min(start + _BLOCK, len(reasons)))
        to_kept = nearest(pixels[block], pixels[kept])[0]
        within = torch.cdist(pixels[block], pixels[block]) / pixels.shape[1] ** 0.5
        bits_to_kept = None if hashes is None else nearest_hash(hashes[block], hashes[kept])
        bits_within = None if hashes is None else hamming(hashes[block], hashes[block])
        new: list[int] = []  # kept of this block, by their place in it
        for j, i in enumerate(block.tolist()):
            why = reasons[i]
            if not why and digests is not None and digests[i] in kept_digests:
                why = "duplicate of a kept image"
            if not why and bits_to_kept is not None and bits_within is not None:
                bits = min([float(bits_to_kept[j]), *bits_within[j, new].tolist()])
                why = "near-duplicate of a kept image" if bits <= real.hash_limit else ""
            if not why and "copy" not in skip:
                gap = min([float(to_kept[j]), *within[j, new].tolist()])
                why = "copy of a kept image" if gap <= real.copy_limit else ""
            full = len(kept) + len(new) >= wanted
            verdict.append(REJECTED if why else SPARE if full else KEPT)
            reason.append(why)
            if verdict[-1] == KEPT:
                new.append(j)
                kept_digests |= {digests[i]} if digests is not None else set()
        kept = torch.cat([kept, block[new]])
    return verdict, reason
