from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rebalance.errors import InputError
from rebalance.methods.batch_mix import MIXES, BatchMix

COUNTS = [90, 30, 3]
TARGETS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 0])


def images(n: int = 8) -> Tensor:
    return torch.rand(n, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["mixup", "remix"])
def test_pixels_are_blended_with_the_partners(kind: str) -> None:
    torch.manual_seed(1)
    mixed = BatchMix(kind, COUNTS)(images(), TARGETS)
    partners = images()[mixed.partners]
    assert torch.equal(mixed.mix.targets, TARGETS[mixed.partners])
    shares = ((mixed.images - partners) / (images() - partners)).flatten(1).nanmedian(1).values
    others = mixed.partners != torch.arange(8)
    torch.testing.assert_close(shares[others], shares[others][:1].expand(int(others.sum())))  # one λ a batch
    if kind == "mixup":
        torch.testing.assert_close(mixed.mix.lam[others], shares[others])


def test_remix_gives_the_label_to_a_much_rarer_partner() -> None:
    mix = BatchMix("remix", COUNTS)
    for seed in range(20):
        torch.manual_seed(seed)
        mixed = mix(images(), TARGETS)
        share = float(((mixed.images - images()[mixed.partners]) / (images() - images()[mixed.partners])).nanmedian())
        head_with_tail = (TARGETS == 0) & (mixed.mix.targets == 2)
        if share < 0.5 and head_with_tail.any():
            assert not mixed.mix.lam[head_with_tail].any()
            return
    pytest.fail("no head image met a tail partner")


@pytest.mark.parametrize("kind", ["cutmix", "cmo"])
def test_boxes_are_pasted_and_their_share_is_counted(kind: str) -> None:
    torch.manual_seed(3)
    mixed = BatchMix(kind, COUNTS)(images(), TARGETS)
    own = (mixed.images == images()).all(dim=1)  # (B, H, W)
    pasted = (mixed.images == images()[mixed.partners]).all(dim=1)
    assert bool((own | pasted).all())
    others = mixed.partners != torch.arange(8)
    torch.testing.assert_close(mixed.mix.lam[others], own.flatten(1).float().mean(1)[others])


def test_cmo_pastes_from_the_tail() -> None:
    drawn = {}
    for kind in ("cutmix", "cmo"):
        torch.manual_seed(0)
        mix = BatchMix(kind, COUNTS)
        partners = torch.cat([mix(images(), TARGETS).mix.targets for _ in range(100)])
        drawn[kind] = float((partners == 2).float().mean())
    assert drawn["cutmix"] == pytest.approx(1 / 8)  # a permutation
    # By inverse frequency, image by image: 1/3 against 2/30 and 5/90.
    assert drawn["cmo"] == pytest.approx((1 / 3) / (1 / 3 + 2 / 30 + 5 / 90), abs=0.05)


@pytest.mark.parametrize("kind", MIXES)
def test_probability_is_the_share_of_batches_that_are_mixed(kind: str) -> None:
    torch.manual_seed(0)
    for probability, expected in ((0.0, 0.0), (0.3, 0.3), (1.0, 1.0)):
        mix = BatchMix(kind, COUNTS, probability=probability)
        changed = [not torch.equal(mix(images(), TARGETS).images, images()) for _ in range(200)]
        assert sum(changed) / 200 == pytest.approx(expected, abs=0.1 if expected == 0.3 else 0.05)


@pytest.mark.parametrize("kind", MIXES)
def test_a_batch_that_is_left_alone_keeps_its_labels(kind: str) -> None:
    torch.manual_seed(0)
    mixed = BatchMix(kind, COUNTS, probability=0.0)(images(), TARGETS)
    assert torch.equal(mixed.images, images())
    if kind != "remix":  # which may give the label away at any λ
        assert bool((mixed.mix.lam == 1).all())


def test_alpha_says_how_near_the_middle() -> None:
    torch.manual_seed(0)
    spread = []
    for alpha in (0.1, 1.0, 20.0):
        mix = BatchMix("mixup", COUNTS, alpha=alpha)
        lam = torch.stack([mix(images(), TARGETS).mix.lam[0] for _ in range(100)])
        spread.append(float((lam - 0.5).abs().mean()))
    assert spread[0] > spread[1] > spread[2]


@pytest.mark.parametrize("kind", MIXES)
def test_all_that_is_random_follows_torchs_seed(kind: str) -> None:
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(BatchMix(kind, COUNTS)(images(), TARGETS).images)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_counts_are_not_saved() -> None:
    assert not BatchMix("remix", COUNTS).state_dict()


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="a batch mix; got 'mixip'; did you mean 'mixup'"):
        BatchMix("mixip", COUNTS)
    with pytest.raises(InputError, match="alpha > 0; got 0"):
        BatchMix("mixup", COUNTS, alpha=0)
    for option in ({"probability": 1.5}, {"until": -0.1}):
        with pytest.raises(InputError, match=rf"{next(iter(option))} in \[0, 1\]"):
            BatchMix("mixup", COUNTS, **option)
