"""How good generated images are beside real ones of the same class, from unit feature vectors.

    KID         unbiased MMD² with the kernel k(x, y) = (⟨x, y⟩ + 1)³; 0 where both are alike
    precision   share of the generated images within the balls of the real ones
    recall      share of the real images within the balls of the generated ones
    density     mean number of real balls that a generated image is in, / k; above 1 where they crowd
    coverage    share of the real images whose ball holds a generated one
    diversity   mean cosine distance between two images of a set

A ball reaches from an image to its k-th nearest neighbour in its own set. KID needs no large samples, unlike FID,
which is biased with few. Its kernel is that of the paper with features scaled to length √D.

Bińkowski et al., Demystifying MMD GANs, 2018, section 4; Kynkäänniemi et al., Improved Precision and Recall Metric,
2019, eq. 1 and 2; Naeem et al., Reliable Fidelity and Diversity Metrics, 2020, eq. 3 and 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

KID_SUBSET = 1000
KID_SUBSETS = 10
MANIFOLD_NEIGHBOURS = 3
COVERAGE_NEIGHBOURS = 5


def kid(real: Tensor, made: Tensor) -> float | None:
    """KID of unit vectors (N, D) and (M, D); None with fewer than two images on a side.

    Of larger sets, the mean over `KID_SUBSETS` random subsets of `KID_SUBSET` images, the same ones every time.
    """
    if min(len(real), len(made)) < 2:
        return None
    if max(len(real), len(made)) <= KID_SUBSET:
        return _mmd(real.double(), made.double())
    stream = torch.Generator().manual_seed(0)
    values = [_mmd(_some(real, stream), _some(made, stream)) for _ in range(KID_SUBSETS)]
    return sum(values) / len(values)


def _some(features: Tensor, stream: torch.Generator) -> Tensor:
    return features[torch.randperm(len(features), generator=stream)[:KID_SUBSET]].double()


def _mmd(x: Tensor, y: Tensor) -> float:
    n, m = len(x), len(y)
    xx, yy, xy = (x @ x.T + 1) ** 3, (y @ y.T + 1) ** 3, (x @ y.T + 1) ** 3
    within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def precision_recall(real: Tensor, made: Tensor, k: int = MANIFOLD_NEIGHBOURS) -> tuple[float, float] | None:
    """Precision and recall of unit vectors (N, D) and (M, D); None with fewer than two images on a side.

    Args:
        real: Real images.
        made: Generated ones.
        k: Neighbours to the ball's rim, or all others where there are fewer.
    """
    if min(len(real), len(made)) < 2:
        return None
    between = _distances(made, real)
    precision = (between <= _radii(real, k)).any(dim=1).double().mean()
    recall = (between <= _radii(made, k)[:, None]).any(dim=0).double().mean()
    return float(precision), float(recall)


def density_coverage(real: Tensor, made: Tensor, k: int = COVERAGE_NEIGHBOURS) -> tuple[float, float] | None:
    """Density and coverage of unit vectors (N, D) and (M, D); None without a made or with fewer than two real images.

    Args:
        real: Real images.
        made: Generated ones.
        k: Neighbours to the ball's rim, or all others where there are fewer.
    """
    if len(real) < 2 or len(made) < 1:
        return None
    k = min(k, len(real) - 1)
    inside = _distances(made, real) <= _radii(real, k)
    return float(inside.double().sum() / (k * len(made))), float(inside.any(dim=0).double().mean())


def diversity(features: Tensor) -> float | None:
    """Mean cosine distance between two different images of (N, D); None with fewer than two."""
    n = len(features)
    if n < 2:
        return None
    unit = features.double()
    total = unit.sum(dim=0).square().sum() - unit.square().sum()  # over all ordered pairs
    return float(1 - total / (n * (n - 1)))


def _radii(features: Tensor, k: int) -> Tensor:
    """Distance (N,) of each image to its k-th nearest other, and a rounding error more."""
    distances = _distances(features, features)
    distances.fill_diagonal_(float("inf"))
    return distances.topk(min(k, len(features) - 1), dim=1, largest=False).values[:, -1] + 1e-9


def _distances(queries: Tensor, references: Tensor) -> Tensor:
    """Cosine distances (Q, R) in float64."""
    return 1 - queries.double() @ references.double().T
