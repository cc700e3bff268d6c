from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from generators import perceptual_hash
from generators.perceptual_hash import BITS, hamming, hash_limit, nearest_hash, perceptual_hashes


def pictures(n: int, size: int = 48, seed: int = 0) -> Tensor:
    """Smooth colour pictures, as photographs are: most of what there is in low frequencies."""
    stream = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 9, 9, generator=stream)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    return (smooth * 255).clamp(0, 255).byte()


def test_hashes_are_those_of_scipy_at_32_px() -> None:
    images = torch.randint(0, 256, (20, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for image, found in zip(images.double().numpy(), perceptual_hashes(images), strict=True):
        grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        low = dctn(grey, norm="ortho")[:8, :8].ravel()
        expected = np.where(low > np.sort(low[1:])[31], 1, -1)
        assert (found.numpy() != expected).sum() <= 1  # a coefficient may be next to the median


def test_hash_of_a_slightly_changed_image_is_near_and_of_another_image_far() -> None:
    images = pictures(30)
    hashes = perceptual_hashes(images)
    noise = torch.randint(-6, 7, images.shape, generator=torch.Generator().manual_seed(1))
    changed = {
        "noise": (images.int() + noise).clamp(0, 255).byte(),
        "brightness": (images.float() * 0.8 + 10).byte(),
        "size": torch.nn.functional.interpolate(images.float(), size=96, mode="bilinear", antialias=True).byte(),
    }
    for what, others in changed.items():
        assert float(hamming(hashes, perceptual_hashes(others)).diagonal().max()) <= 6, what
    between = hamming(hashes, hashes)
    assert float(between[~torch.eye(30, dtype=torch.bool)].min()) > 10


@pytest.mark.parametrize("exclude_self", [False, True])
def test_nearest_hashes_are_those_of_a_plain_loop(exclude_self: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual_hash, "_BLOCK", 7)
    stream = torch.Generator().manual_seed(0)
    references = (torch.randint(0, 2, (120, BITS), generator=stream) * 2 - 1).to(torch.int8)
    queries = references if exclude_self else references[3:40].flip(1)
    found = nearest_hash(queries, references, exclude_self=exclude_self)
    for i, query in enumerate(queries):
        bits = [int((query != r).sum()) for j, r in enumerate(references) if not (exclude_self and i == j)]
        assert int(found[i]) == min(bits)


def test_without_references_nothing_is_near() -> None:
    hashes = perceptual_hashes(pictures(3))
    assert nearest_hash(hashes, hashes[:0]).tolist() == [BITS] * 3
    assert len(perceptual_hashes(pictures(3)[:0])) == 0


def test_limit_is_the_configured_one_where_real_images_differ() -> None:
    hashes = perceptual_hashes(pictures(40))
    members = [torch.arange(0, 20), torch.arange(20, 40)]
    assert hash_limit(hashes, members, 4) == 4
    assert hash_limit(hashes, members, 0) == 0


def test_limit_is_below_what_real_images_of_a_class_differ_by() -> None:
    hashes = perceptual_hashes(pictures(40))
    near = hashes.clone()
    near[1] = near[0]
    near[1, [5, 9]] *= -1  # two bits from its neighbour
    members = [torch.arange(0, 20), torch.arange(20, 40)]
    assert hash_limit(near, members, 4) == 1
    assert hash_limit(near, [torch.arange(1, 40), torch.arange(1)], 4) == 4  # not of one class


def test_the_same_image_twice_does_not_narrow_the_limit() -> None:
    hashes = perceptual_hashes(pictures(20))
    assert hash_limit(torch.cat([hashes, hashes]), [torch.arange(40)], 4) == 4


def test_images_that_all_look_alike_turn_the_comparison_off() -> None:
    hashes = perceptual_hashes(pictures(20)[:1]).repeat(20, 1)
    hashes[torch.arange(20), torch.arange(20)] *= -1  # two bits from one another
    assert hash_limit(hashes, [torch.arange(20)], 4) == 1
