from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generators import neighbours
from generators.neighbours import NEIGHBOURS, POOL_WEIGHT, mean_distance, nearest, real_distances


def unit(n: int, seed: int = 0, d: int = 6) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def mean_distance_by_loops(queries: np.ndarray, references: np.ndarray, leave_out: bool) -> list[float]:
    means = []
    for i, query in enumerate(queries):
        distances = [
            1 - float(query @ reference) for j, reference in enumerate(references) if not (leave_out and i == j)
        ]
        means.append(float(np.mean(sorted(distances)[:NEIGHBOURS])))
    return means


@pytest.mark.parametrize("n", [1, 3, 5, 6, 40])
def test_mean_distances_are_those_of_a_plain_loop(n: int) -> None:
    queries, references = unit(17), unit(n, seed=1)
    expected = mean_distance_by_loops(queries.double().numpy(), references.double().numpy(), False)
    np.testing.assert_allclose(mean_distance(queries, references).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("n", [2, 5, 6, 40])
def test_real_images_are_no_neighbours_of_themselves(n: int) -> None:
    images = unit(n)
    images[1] = images[0]  # a duplicate is a neighbour all the same
    expected = mean_distance_by_loops(images.double().numpy(), images.double().numpy(), True)
    np.testing.assert_allclose(mean_distance(images, images, exclude_self=True).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("exclude_self", [False, True])
def test_nearest_images_are_those_of_a_plain_loop(exclude_self: bool) -> None:
    stream = torch.Generator().manual_seed(0)
    queries = torch.rand(30, 27, generator=stream)
    references = queries if exclude_self else torch.rand(9, 27, generator=stream)
    distance, row = nearest(queries, references, exclude_self=exclude_self)
    for i, query in enumerate(queries.double().numpy()):
        gaps = [float(np.sqrt(((query - r) ** 2).mean())) for r in references.double().numpy()]
        if exclude_self:
            gaps[i] = np.inf
        assert float(distance[i]) == pytest.approx(min(gaps), abs=1e-5)
        assert int(row[i]) == int(np.argmin(gaps))


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    images = unit(50)
    whole = mean_distance(images, images, exclude_self=True), *nearest(images, images, exclude_self=True)
    monkeypatch.setattr(neighbours, "_BLOCK", 7)
    blocks = mean_distance(images, images, exclude_self=True), *nearest(images, images, exclude_self=True)
    torch.testing.assert_close(blocks, whole)


def test_without_references_nothing_is_near_and_without_queries_there_is_nothing() -> None:
    distance, row = nearest(unit(3), unit(0))
    assert distance.tolist() == [float("inf")] * 3
    assert row.tolist() == [-1] * 3
    assert [len(part) for part in nearest(unit(0), unit(3))] == [0, 0]
    assert len(mean_distance(unit(0), unit(3))) == 0


# What real images show


def measured(counts: list[int], quantile: float = 0.9, copy_quantile: float = 0.01):  # type: ignore[no-untyped-def]
    targets = np.repeat(np.arange(len(counts)), counts)
    features = unit(len(targets))
    pixels = torch.rand(len(targets), 12, generator=torch.Generator().manual_seed(1))
    distances = real_distances(features, pixels, targets, len(counts), quantile=quantile, copy_quantile=copy_quantile)
    return features, pixels, targets, distances


def test_the_limit_of_a_class_is_drawn_towards_what_all_classes_show() -> None:
    features, _, targets, distances = measured([40, 12])
    own = [mean_distance_by_loops(x, x, True) for x in (features[targets == c].double().numpy() for c in range(2))]
    # The largest class: its own leave-one-out distances are also all that is pooled.
    head = np.quantile(own[0], 0.9)
    assert distances.limits[0] == pytest.approx(head, rel=1e-5)
    assert distances.last_limit[0] == pytest.approx(np.quantile(own[0], 0.995), rel=1e-5)
    # The smaller: 12 images of the larger class as neighbours of its other 28.
    order = np.random.default_rng(0).permutation(40)
    x = features[:40].double().numpy()[order]
    pooled = np.quantile(mean_distance_by_loops(x[12:], x[:12], False), 0.9)
    tail = np.quantile(own[1], 0.9)
    assert distances.limits[1] == pytest.approx((12 * tail + POOL_WEIGHT * pooled) / (12 + POOL_WEIGHT), rel=1e-5)
    assert distances.limits[1] > distances.limits[0]  # few neighbours are farther away


def test_a_class_of_one_image_has_the_limit_of_the_others() -> None:
    features, _, _, distances = measured([40, 1, 8])
    stream, parts = np.random.default_rng(0), []
    for rows in (np.arange(40), np.arange(41, 49)):
        order = stream.permutation(rows)
        x = features.double().numpy()
        parts += mean_distance_by_loops(x[order[1:]], x[order[:1]], False)
    assert distances.limits[1] == pytest.approx(np.quantile(parts, 0.9), rel=1e-5)
    assert distances.last_limit[1] == pytest.approx(np.quantile(parts, 0.995), rel=1e-5)


def test_where_all_classes_have_one_image_nothing_is_too_far() -> None:
    _, _, _, distances = measured([1, 1, 1])
    assert distances.limits.tolist() == [2.0] * 3  # opposite directions
    assert distances.last_limit.tolist() == [2.0] * 3
    assert distances.copy_limit == 1 / 255


@pytest.mark.parametrize("counts", [[2, 1], [2, 2], [3, 2, 1], [60, 30, 5, 1]])
def test_limits_are_finite_numbers_and_the_last_is_no_smaller(counts: list[int]) -> None:
    _, _, _, distances = measured(counts)
    assert np.isfinite(distances.limits).all()
    assert (distances.limits > 0).all()
    assert (distances.last_limit >= distances.limits).all()


def test_the_copy_limit_is_a_quantile_of_the_gaps_between_real_images_of_a_class() -> None:
    _, pixels, targets, distances = measured([20, 10, 1], copy_quantile=0.25)
    gaps = []
    for label in (0, 1):
        own = pixels[targets == label].double().numpy()
        for i, one in enumerate(own):
            gaps.append(min(np.sqrt(((one - other) ** 2).mean()) for j, other in enumerate(own) if i != j))
    assert distances.copy_limit == pytest.approx(np.quantile(gaps, 0.25), rel=1e-5)


def test_the_copy_limit_is_at_least_one_grey_level() -> None:
    features = unit(6)
    same = torch.full((6, 12), 0.5)
    distances = real_distances(features, same, np.zeros(6, dtype=np.int64), 1, quantile=0.9, copy_quantile=0.01)
    assert distances.copy_limit == 1 / 255


def test_measuring_twice_gives_the_same() -> None:
    first, again = measured([600, 30, 5])[3], measured([600, 30, 5])[3]
    np.testing.assert_array_equal(first.limits, again.limits)
    np.testing.assert_array_equal(first.last_limit, again.last_limit)
