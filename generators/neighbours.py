"""How far images are from the real images of their class, and how far real ones are from one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rebalance.counts import FloatArray, IntArray

NEIGHBOURS = 5
POOL_WEIGHT = 50
"""Pseudo-images by which a class's quantile is drawn towards that of all classes."""
_BLOCK = 1024


def mean_distance(queries: Tensor, references: Tensor, *, exclude_self: bool = False) -> Tensor:
    """Mean cosine distance to the `NEIGHBOURS` nearest references, or to all if they are fewer, (Q,).

    Args:
        queries: Unit vectors (Q, D).
        references: Unit vectors (R, D).
        exclude_self: Query i is reference i, and no neighbour of itself; R is at least 2 then.
    """
    k = min(NEIGHBOURS, len(references) - int(exclude_self))
    parts = []
    for start in range(0, len(queries), _BLOCK):
        similarity = queries[start : start + _BLOCK] @ references.T
        if exclude_self:
            rows = torch.arange(len(similarity))
            similarity[rows, rows + start] = -2.0
        parts.append(1 - similarity.topk(k, dim=1).values.mean(dim=1))
    return torch.cat(parts) if parts else queries.new_zeros(0)


def nearest(queries: Tensor, references: Tensor, *, exclude_self: bool = False) -> tuple[Tensor, Tensor]:
    """Root-mean-square distance (Q,) to the nearest reference, and which one that is (Q,).

    Args:
        queries: (Q, D).
        references: (R, D); none gives infinite distances.
        exclude_self: Query i is reference i, and not its own neighbour.
    """
    if len(references) == 0:
        return torch.full((len(queries),), float("inf")), torch.full((len(queries),), -1)
    distances, rows = [queries.new_zeros(0)], [torch.zeros(0, dtype=torch.int64)]
    for start in range(0, len(queries), _BLOCK):
        d = torch.cdist(queries[start : start + _BLOCK], references)
        if exclude_self:
            here = torch.arange(len(d))
            d[here, here + start] = float("inf")
        smallest = d.min(dim=1)
        distances.append(smallest.values / queries.shape[1] ** 0.5)
        rows.append(smallest.indices)
    return torch.cat(distances), torch.cat(rows)


@dataclass(frozen=True)
class RealDistances:
    """What distances real images show, as limits for generated ones.

    Args:
        limits: Largest usual mean feature distance to a class's real images, (C,).
        last_limit: The limit beyond which no class is loosened, (C,).
        copy_limit: Pixel distance (root mean square of [0, 1]) at which two images count as one.
    """

    limits: FloatArray
    last_limit: FloatArray
    copy_limit: float


def real_distances(
    features: Tensor, pixels: Tensor, targets: IntArray, n_classes: int, *, quantile: float, copy_quantile: float
) -> RealDistances:
    """Measure the real images against one another.

    A class of n images is judged by its own leave-one-out distances, drawn towards what other classes show when only n
    of their images may be neighbours: few neighbours are farther away, whatever the class. A class of one image has
    only the latter.

    Args:
        features: Unit vectors (N, D).
        pixels: (N, P) in [0, 1].
        targets: Class ids (N,).
        n_classes: C.
        quantile: Of the feature distances; the limit.
        copy_quantile: Of the distances to the nearest other real image of the class, in pixels.
    """
    members = [np.flatnonzero(targets == label) for label in range(n_classes)]
    own = [mean_distance(features[m], features[m], exclude_self=True) if len(m) > 1 else None for m in members]
    pools = {n: _with_few_neighbours(features, members, n) for n in {len(rows) for rows in members}}
    limits, last = np.zeros(n_classes), np.zeros(n_classes)
    for label, rows in enumerate(members):
        pooled = pools[len(rows)]
        pooled_limit = float(torch.quantile(pooled, quantile))
        distances = own[label]
        n = 0 if distances is None else len(distances)
        class_limit = pooled_limit if distances is None else float(torch.quantile(distances, quantile))
        limits[label] = (n * class_limit + POOL_WEIGHT * pooled_limit) / (n + POOL_WEIGHT)
        last[label] = max(float(torch.quantile(pooled, 0.995)), limits[label])
    gaps = [nearest(pixels[m], pixels[m], exclude_self=True)[0] for m in members if len(m) > 1]
    copy_limit = float(torch.quantile(torch.cat(gaps), copy_quantile)) if gaps else 0.0
    return RealDistances(limits, last, max(copy_limit, 1 / 255))


def _with_few_neighbours(features: Tensor, members: list[IntArray], n: int) -> Tensor:
    """Distances of real images to `n` random others of their class, over all classes that are larger than `n`.

    The largest class is compared with all its others. Where no class has two images nothing is known of what is usual:
    then the largest distance that there is.
    """
    stream = np.random.default_rng(0)
    largest = max(len(rows) for rows in members)
    if largest < 2:
        return torch.tensor([2.0])
    distances = []
    for rows in members:
        usable = min(n, largest - 1)
        if len(rows) <= usable:
            continue
        order = stream.permutation(rows)
        references, queries = order[:usable], order[usable:][:500]
        if len(rows) == usable + 1:
            distances.append(mean_distance(features[rows], features[rows], exclude_self=True))
        else:
            distances.append(mean_distance(features[queries], features[references]))
    return torch.cat(distances)
