"""Batch mixes: pixels and label shares against loops, and the draws they are made of."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.errors import InputError
from rebalance.losses import FocalSoftmaxLoss, LDAMLoss, cross_entropy_loss
from rebalance.mixing import (
    cutmix,
    mixed_loss,
    mixup,
    remix,
    sample_center,
    sample_lambda,
    sample_permutation,
    sample_tail_partners,
)

B, H, W = 4, 8, 6
IMAGES = torch.arange(B, dtype=torch.float32)[:, None, None, None].expand(B, 3, H, W).contiguous()  # image i is all i
TARGETS = torch.tensor([0, 2, 1, 2])
PERMUTATION = torch.tensor([1, 0, 3, 3])


def test_mixup_blends_pixels_and_labels_alike() -> None:
    mixed, (partners, lam) = mixup(IMAGES, TARGETS, 0.3, PERMUTATION)
    for i in range(B):
        assert mixed[i].unique().tolist() == pytest.approx([0.3 * i + 0.7 * int(PERMUTATION[i])])
    assert partners.tolist() == [2, 0, 2, 2]
    assert lam.tolist() == pytest.approx([0.3] * 4)
    lam[0] = 1.0  # the samples' shares are memory of their own
    assert lam[1].item() == pytest.approx(0.3)


def test_mixup_takes_a_share_for_each_sample() -> None:
    lam = torch.tensor([0.0, 0.25, 0.5, 1.0])
    mixed, (_, shares) = mixup(IMAGES, TARGETS, lam, PERMUTATION)
    assert mixed[:, 0, 0, 0].tolist() == pytest.approx([1.0, 0.25, 2.5, 3.0])
    assert torch.equal(shares, lam)
    assert shares is not lam


def test_lambda_one_changes_nothing() -> None:
    for mixed, (_, lam) in (
        mixup(IMAGES, TARGETS, 1.0, PERMUTATION),
        cutmix(IMAGES, TARGETS, 1.0, PERMUTATION, (0.5, 0.5)),
        remix(IMAGES, TARGETS, 1.0, PERMUTATION, [5, 5, 5]),
    ):
        assert torch.equal(mixed, IMAGES)
        assert lam.tolist() == [1.0] * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_images_keep_their_dtype_and_shares_are_float32_or_wider(dtype: torch.dtype) -> None:
    for mixed, (_, lam) in (
        mixup(IMAGES.to(dtype), TARGETS, 0.3, PERMUTATION),
        cutmix(IMAGES.to(dtype), TARGETS, 0.3, PERMUTATION, (0.5, 0.5)),
    ):
        assert mixed.dtype == dtype
        assert lam.dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("lam", [0.1, 0.4, 0.6, 0.9])
def test_remix_gives_the_label_to_the_rarer_class_where_it_is_rare_enough(lam: float) -> None:
    counts, kappa, tau = [90, 30, 10], 3.0, 0.5
    targets = torch.tensor([0, 2, 1, 2, 1])
    permutation = torch.tensor([1, 0, 3, 4, 0])
    images = torch.rand(5, 2)
    mixed, (partners, shares) = remix(images, targets, lam, permutation, counts, kappa=kappa, tau=tau)
    expected = []
    for own, other in zip(targets.tolist(), partners.tolist(), strict=True):
        ratio = counts[own] / counts[other]
        expected.append(0.0 if ratio >= kappa and lam < tau else 1.0 if ratio <= 1 / kappa and 1 - lam < tau else lam)
    torch.testing.assert_close(shares, torch.tensor(expected))
    assert torch.equal(mixed, mixup(images, targets, lam, permutation)[0])


def test_remix_s_kappa_and_tau_move_the_labels() -> None:
    counts = torch.tensor([90, 30, 10])
    base = remix(IMAGES, TARGETS, 0.4, PERMUTATION, counts)[1][1]
    assert not torch.equal(remix(IMAGES, TARGETS, 0.4, PERMUTATION, counts, kappa=10.0)[1][1], base)
    assert not torch.equal(remix(IMAGES, TARGETS, 0.4, PERMUTATION, counts, tau=0.3)[1][1], base)


def pasted(image: Tensor, partner: float) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the box of `partner`'s pixels, which must be a filled one."""
    box = (image == partner).all(dim=0)
    rows, columns = box.any(dim=1).nonzero(), box.any(dim=0).nonzero()
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    assert box[top:bottom, left:right].all()
    return top, bottom, left, right


def test_cutmix_pastes_a_box_and_counts_what_is_left() -> None:
    mixed, (partners, lam) = cutmix(IMAGES, TARGETS, 0.75, PERMUTATION, (0.5, 0.5))
    assert pasted(mixed[0], 1.0) == (2, 6, 1, 4)  # half of 8 and of 6 pixels
    assert (mixed[0] == 0).sum() == 3 * (H * W - 12)
    assert torch.equal(mixed[3], IMAGES[3])
    assert partners.tolist() == [2, 0, 2, 2]
    assert lam.tolist() == pytest.approx([1 - 12 / 48] * 4)


@pytest.mark.parametrize("center", [(0.0, 0.0), (0.999, 0.999), (0.1, 0.9)])
def test_cutmix_s_share_is_that_of_the_pixels_where_the_edge_cuts_the_box(center: tuple[float, float]) -> None:
    mixed, (_, lam) = cutmix(IMAGES, TARGETS, 0.5, PERMUTATION, center)
    left = (mixed[0] == 0).float().mean().item()
    assert lam[0].item() == pytest.approx(left)
    assert 0.5 < left < 1.0


def test_cutmix_takes_a_share_for_each_sample() -> None:
    mixed, (_, lam) = cutmix(IMAGES, TARGETS, torch.tensor([1.0, 0.0, 0.75, 0.5]), PERMUTATION, (0.5, 0.5))
    assert torch.equal(mixed[0], IMAGES[0])
    assert torch.equal(mixed[1], IMAGES[0])
    assert lam[:3].tolist() == pytest.approx([1.0, 0.0, 0.75])


def test_mixed_loss_weighs_two_losses_sample_by_sample() -> None:
    logits = torch.randn(B, 3, dtype=torch.float64)
    partners, lam = torch.tensor([2, 0, 2, 2]), torch.tensor([0.0, 0.3, 0.8, 1.0], dtype=torch.float64)
    per_sample = mixed_loss(cross_entropy_loss, logits, TARGETS, partners, lam, reduction="none")
    for i in range(B):
        own = cross_entropy_loss(logits[i : i + 1], TARGETS[i : i + 1])
        other = cross_entropy_loss(logits[i : i + 1], partners[i : i + 1])
        torch.testing.assert_close(per_sample[i], lam[i] * own + (1 - lam[i]) * other)
    torch.testing.assert_close(mixed_loss(cross_entropy_loss, logits, TARGETS, partners, lam), per_sample.sum() / 4)
    total = mixed_loss(cross_entropy_loss, logits, TARGETS, partners, lam, reduction="sum")
    torch.testing.assert_close(total, per_sample.sum())
    with pytest.raises(InputError, match="expected a reduction out of mean, sum, none; got 'weighted_mean'"):
        mixed_loss(cross_entropy_loss, logits, TARGETS, partners, lam, reduction="weighted_mean")


def test_mixed_loss_takes_modules_and_is_soft_target_cross_entropy() -> None:
    logits = torch.randn(B, 3, dtype=torch.float64)
    partners, lam = torch.tensor([2, 0, 2, 2]), torch.tensor([0.0, 0.3, 0.8, 1.0], dtype=torch.float64)
    one_hot = torch.eye(3, dtype=torch.float64)
    soft = lam[:, None] * one_hot[TARGETS] + (1 - lam)[:, None] * one_hot[partners]
    torch.testing.assert_close(
        mixed_loss(cross_entropy_loss, logits, TARGETS, partners, lam),
        torch.nn.functional.cross_entropy(logits, soft),
    )
    for module in (FocalSoftmaxLoss(), LDAMLoss([5, 3, 1])):
        loss = mixed_loss(module, logits, TARGETS, partners, torch.ones(B))
        torch.testing.assert_close(loss, module(logits, TARGETS))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mixed_loss_takes_a_module_of_torch_s_that_does_not_reduce() -> None:
    logits, lam = torch.randn(4, 3), torch.tensor([0.1, 0.9, 0.4, 1.0])
    weight = torch.tensor([1.0, 2.0, 3.0])
    arguments = logits, TARGETS, TARGETS.flip(0), lam
    found = mixed_loss(torch.nn.CrossEntropyLoss(weight, reduction="none"), *arguments)
    torch.testing.assert_close(found, mixed_loss(partial(F.cross_entropy, weight=weight), *arguments))
    with pytest.raises(InputError, match="got CrossEntropyLoss with reduction 'mean'; make it with"):
        mixed_loss(torch.nn.CrossEntropyLoss(), *arguments)


def test_lambda_is_beta_distributed() -> None:
    draws = generator()
    for alpha in (0.2, 1.0, 4.0):
        sample = np.array([sample_lambda(alpha, generator=draws) for _ in range(3000)])
        assert sample.mean() == pytest.approx(0.5, abs=0.03)
        assert sample.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    assert sample_lambda(0.0) == 1.0


def test_draws_repeat_with_their_generator_and_follow_torch_s_seed_without_one() -> None:
    def draw(source: torch.Generator | None) -> tuple[float, list[int], list[int], tuple[float, float]]:
        return (
            sample_lambda(1.0, generator=source),
            sample_permutation(9, generator=source).tolist(),
            sample_tail_partners(TARGETS, [5, 3, 1], generator=source).tolist(),
            sample_center(generator=source),
        )

    state = torch.get_rng_state()
    assert draw(generator(3)) == draw(generator(3))
    assert draw(generator(3)) != draw(generator(4))
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        assert draw(None) == draw(generator(3))


def test_tail_partners_are_drawn_by_inverse_frequency_of_their_class() -> None:
    targets = torch.tensor([0] * 6 + [1] * 3 + [2])
    counts, draws = [60, 30, 10], generator()
    drawn = torch.cat([sample_tail_partners(targets, counts, generator=draws) for _ in range(2000)])
    shares = torch.bincount(targets[drawn], minlength=3) / len(drawn)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), rtol=0, atol=0.02)  # 6/60 : 3/30 : 1/10
    alike = torch.cat([sample_tail_partners(targets, counts, strength=0.0, generator=draws) for _ in range(2000)])
    shares = torch.bincount(targets[alike], minlength=3) / len(alike)
    torch.testing.assert_close(shares, torch.tensor([0.6, 0.3, 0.1]), rtol=0, atol=0.02)


def test_counts_as_a_series_are_taken_by_class_id() -> None:
    counts = pd.Series([1000, 100, 10], [2, 0, 1])
    draws = [
        sample_tail_partners(TARGETS, n, generator=torch.Generator().manual_seed(0)) for n in (counts, [100, 10, 1000])
    ]
    assert torch.equal(*draws)
    shares = [remix(IMAGES, TARGETS, 0.4, PERMUTATION, n)[1][1] for n in (counts, [100, 10, 1000])]
    assert torch.equal(*shares)


def test_centers_lie_in_the_image() -> None:
    draws = generator()
    centers = np.array([sample_center(generator=draws) for _ in range(500)])
    assert ((centers >= 0) & (centers < 1)).all()
    assert centers.mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.05)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected floating point images; got torch.uint8"):
        mixup(IMAGES.to(torch.uint8), TARGETS, 0.5, PERMUTATION)
    with pytest.raises(InputError, match=r"expected a partner for each of 4 images; got \(3,\)"):
        cutmix(IMAGES, TARGETS, 0.5, PERMUTATION[:3], (0.5, 0.5))
    with pytest.raises(InputError, match="expected a count > 0 for every class of the batch"):
        sample_tail_partners(TARGETS, [5, 0, 1])
    with pytest.raises(InputError, match=r"lambda in \[0, 1\]; got 2.0; draw it with sample_lambda"):
        mixup(IMAGES, TARGETS, 2.0, PERMUTATION)
    with pytest.raises(InputError, match=r"lambda in \[0, 1\]; got \[0.5, 1.5"):
        mixup(IMAGES, TARGETS, torch.tensor([0.5, 1.5, 0.0, 0.0]), PERMUTATION)
    with pytest.raises(InputError, match=r"tau in \[0, 1\]; got 5.0; use the paper's 0.5"):
        remix(IMAGES, TARGETS, 0.5, PERMUTATION, [5, 2, 1], tau=5.0)
    with pytest.raises(InputError, match="kappa > 0; got -1"):
        remix(IMAGES, TARGETS, 0.5, PERMUTATION, [5, 2, 1], kappa=-1)
    for alpha in (math.nan, math.inf):
        with pytest.raises(InputError, match="a finite alpha; got"):
            sample_lambda(alpha)


def test_a_module_that_takes_a_reduction_is_asked_for_each_sample() -> None:
    class Own(nn.CrossEntropyLoss):
        def forward(self, logits: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
            return F.cross_entropy(logits, targets, reduction=reduction)

    logits, partners, lam = torch.randn(4, 3), TARGETS.roll(1), torch.full((4,), 0.25)
    expected = mixed_loss(F.cross_entropy, logits, TARGETS, partners, lam)
    torch.testing.assert_close(mixed_loss(Own(), logits, TARGETS, partners, lam), expected)
