"""KID, precision, recall, density, coverage and diversity against plain float64 loops and known cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generators import quality
from generators.quality import density_coverage, diversity, kid, precision_recall


def unit(n: int, seed: int = 0, d: int = 6, centre: float = 0.5) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=stream) + centre, dim=1)


def arrays(*parts: Tensor) -> list[np.ndarray]:
    return [part.double().numpy() for part in parts]


def test_kid_is_that_of_a_plain_loop() -> None:
    real, made = unit(9), unit(7, seed=1, centre=0.2)
    x, y = arrays(real, made)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b + 1) ** 3)

    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert kid(real, made) == pytest.approx(xx + yy - 2 * xy, abs=1e-12)


def test_kid_is_unbiased() -> None:
    """Of two samples of one distribution the mean is 0, however small they are."""
    values = [kid(unit(4, seed=2 * i), unit(4, seed=2 * i + 1)) for i in range(400)]
    assert abs(np.mean([value for value in values if value is not None])) < 3 * np.std(values) / 20


def test_kid_grows_with_the_difference() -> None:
    values = [kid(unit(200), unit(200, seed=1, centre=centre)) or 0.0 for centre in (0.5, 0.2, -0.5)]
    assert values[0] < 0.05 < values[1] < values[2]


def test_kid_of_large_sets_is_the_mean_over_subsets_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = unit(300), unit(400, seed=1, centre=0.2)
    whole = kid(real, made)
    monkeypatch.setattr(quality, "KID_SUBSET", 100)
    part = kid(real, made)
    assert part == kid(real, made)
    assert part == pytest.approx(whole, rel=0.2)
    assert part != whole


def manifolds_by_loops(real: np.ndarray, made: np.ndarray, k: int) -> tuple[float, float, float, float]:
    def radius(points: np.ndarray, i: int) -> float:
        return float(sorted(1 - points[i] @ p for j, p in enumerate(points) if j != i)[min(k, len(points) - 1) - 1])

    real_radii = [radius(real, i) for i in range(len(real))]
    made_radii = [radius(made, i) for i in range(len(made))] if len(made) > 1 else [0.0]
    inside = np.array([[1 - y @ x <= r for x, r in zip(real, real_radii, strict=True)] for y in made])
    back = np.array([[1 - y @ x <= r for y, r in zip(made, made_radii, strict=True)] for x in real])
    density = inside.sum() / (min(k, len(real) - 1) * len(made))
    return inside.any(axis=1).mean(), back.any(axis=1).mean(), density, inside.any(axis=0).mean()


@pytest.mark.parametrize(("n", "m"), [(30, 20), (3, 40), (12, 2)])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_manifold_measures_are_those_of_a_plain_loop(n: int, m: int, k: int) -> None:
    real, made = unit(n), unit(m, seed=1, centre=0.3)
    expected = manifolds_by_loops(*arrays(real, made), k)
    assert precision_recall(real, made, k) == pytest.approx(expected[:2])
    assert density_coverage(real, made, k) == pytest.approx(expected[2:])


def test_the_real_images_themselves_are_perfect() -> None:
    real = unit(25)
    assert precision_recall(real, real) == (1.0, 1.0)
    assert density_coverage(real, real)[1] == 1.0  # type: ignore[index]


def test_one_image_again_and_again_is_precise_and_covers_little() -> None:
    real = unit(25)
    made = real[:1].repeat(20, 1)
    assert precision_recall(real, made) == (1.0, 1 / 25)
    assert diversity(made) == pytest.approx(0.0, abs=1e-6)


def test_diversity_is_the_mean_distance_of_pairs() -> None:
    features = unit(11)
    x = features.double().numpy()
    expected = np.mean([1 - x[i] @ x[j] for i in range(11) for j in range(11) if i != j])
    assert diversity(features) == pytest.approx(expected, abs=1e-12)


def test_too_few_images_give_no_figure() -> None:
    one, some, none = unit(1), unit(5), unit(0)
    assert kid(one, some) is kid(some, one) is kid(some, none) is None
    assert precision_recall(one, some) is precision_recall(some, one) is None
    assert density_coverage(one, some) is density_coverage(some, none) is None
    assert density_coverage(some, one) is not None
    assert diversity(one) is diversity(none) is None
