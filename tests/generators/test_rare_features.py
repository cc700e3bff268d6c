from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.rare_features import RareFeatureGenerator
from rebalance.errors import InputError

COUNTS = [5, 100, 20, 80, 3]  # with head_share 0.4 the head is classes 1 and 3


def generator(**options: Any) -> RareFeatureGenerator:
    torch.manual_seed(0)
    settings = {"n_centers": 3, "contrast_channels": 5, "head_share": 0.4, **options}
    module = RareFeatureGenerator(COUNTS, 4, **settings)
    nn.init.normal_(module.centers)
    return module


def batch(targets: list[int], height: int = 3, width: int = 2) -> tuple[Tensor, Tensor]:
    noise = torch.Generator().manual_seed(len(targets))
    maps = torch.randn(len(targets), 4, height, width, generator=noise).relu()
    return maps.requires_grad_(), torch.tensor(targets)


# The batch


@pytest.mark.parametrize(
    ("targets", "strength", "source"),
    [
        ([1, 3, 0, 1, 1, 2, 3, 1], 1.0, [2, 5, 2, 5, 2, 5]),  # 6 heads, 2 tails: three passes over the tails
        ([1, 3, 0, 1, 1, 2, 3, 1], 0.5, [2, 5]),  # int(6 * 0.5 / 2) = 1
        ([1, 0, 3], 0.2, [1]),  # int(2 * 0.2 / 1) = 0, raised to 1
        ([0, 1, 2, 4, 3, 2, 0], 1.0, [0, 2, 3, 5]),  # 2 heads, 5 tails: slices of the tails, one left over
        ([1, 0], 1.0, [1]),
        ([1, 3, 1], 1.0, []),
        ([0, 2, 4], 1.0, []),
        ([4], 1.0, []),
    ],
)
def test_new_rows_stand_for_tail_rows_in_order(targets: list[int], strength: float, source: list[int]) -> None:
    maps, labels = batch(targets)
    out = generator(strength=strength)(maps, labels, True)
    assert out.source.tolist() == [*range(len(targets)), *source]
    assert torch.equal(out.targets, labels[out.source])
    assert torch.equal(out.maps[: len(targets)], maps)
    assert len(out.maps) == len(targets) + len(source)
    assert (out.losses["mv"] != 0) == bool(source)


def test_a_new_row_is_its_tail_map_plus_the_transformed_variation_of_its_head_map() -> None:
    module = generator()
    maps, labels = batch([2, 1])
    out = module(maps, labels, True)
    pooled = maps[1].mean(dim=(1, 2))
    nearest = (pooled @ module.assignment_weight[1] + module.assignment_bias[1]).argmax()
    variation = maps[1] - module.centers[1, nearest][:, None, None]
    torch.testing.assert_close(out.maps[2], maps[0] + module.transform(variation[None])[0])


@pytest.mark.parametrize("active", [False, True])
def test_before_its_start_the_batch_stays_as_it_is(active: bool) -> None:
    maps, labels = batch([1, 0, 3])
    out = generator()(maps, labels, active)
    assert len(out.maps) == (5 if active else 3)
    if not active:
        assert out.maps is maps
        assert out.losses["mv"] == 0


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 5)])
def test_any_batch_and_any_map_size_will_do(n: int, active: bool, shape: tuple[int, int]) -> None:
    maps, labels = batch([1, 0, 3, 2, 4][:n], *shape)
    out = generator()(maps, labels, active)
    (out.maps.sum() + sum(out.losses.values())).backward()
    assert all(torch.isfinite(loss) for loss in out.losses.values())


def test_an_odd_sample_is_left_out_of_the_pairs() -> None:
    maps, labels = batch([1, 0, 1, 2, 3])
    module = generator()
    whole = module(maps, labels, False).losses["cesc"]
    pair = module.contrast(torch.cat([maps[:2], maps[2:4]], 1))
    pair_loss = F.cross_entropy(pair, torch.tensor([1, 0]))
    centers_only = module(maps, labels, True).losses["cesc"]
    torch.testing.assert_close(whole, centers_only + pair_loss)


def test_memory_order_of_the_maps_does_not_matter() -> None:
    maps, labels = batch([1, 0, 3, 2, 1])
    module = generator()
    plain = module(maps, labels, True)
    other = module(maps.detach().to(memory_format=torch.channels_last), labels, True)
    torch.testing.assert_close(other.maps, plain.maps)
    for name, loss in plain.losses.items():
        torch.testing.assert_close(other.losses[name], loss)


# Gradients


BATCHES = {"both": [1, 0, 3, 2, 1], "heads": [1, 3, 1], "tails": [0, 2], "one": [4]}


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("active", [False, True])
def test_every_parameter_gets_a_gradient_in_every_phase_and_the_backbone_none_of_the_losses(
    kind: str, active: bool
) -> None:
    maps, labels = batch(BATCHES[kind])
    module = generator()
    out = module(maps, labels, active)
    sum(out.losses.values()).backward()
    assert maps.grad is None
    assert all(weight.grad is not None for weight in module.parameters())
    generates = active and kind == "both"
    assert bool(module.transform.weight.grad.any()) == generates
    pairs = not active and len(labels) >= 2
    assert bool(module.contrast[0].weight.grad.any()) == pairs
    assert module.centers.grad.any()


@pytest.mark.parametrize("center_gradient", ["exact", "bounded"])
def test_on_larger_maps_the_centres_can_learn_as_fast_as_on_maps_of_8_by_8(center_gradient: str) -> None:
    maps, targets = (
        torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 0, 1, 1, 2, 3]),
    )
    gradients, losses = [], []
    for scale in (1, 2, 4):
        rsg = generator(center_gradient=center_gradient)
        larger = maps.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
        out = rsg(larger, targets, True)
        out.losses["cesc"].backward()
        gradients.append(rsg.centers.grad)
        losses.append(float(out.losses["cesc"].detach()) / scale**2)
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-5)  # the loss is the original's
    for scale, gradient in zip((2, 4), gradients[1:], strict=True):
        factor = scale**2 if center_gradient == "exact" else 1
        torch.testing.assert_close(gradient, factor * gradients[0], rtol=1e-4, atol=1e-4)


def test_centres_of_a_frequent_class_stay_finite_under_nesterov_momentum() -> None:
    torch.manual_seed(0)
    rsg = generator(n_centers=1, center_gradient="bounded")
    optimizer = torch.optim.SGD([rsg.centers], lr=0.1, momentum=0.9, nesterov=True)
    targets = torch.tensor([0] * 4 + [1, 2, 3, 3])  # half of the batch
    for _ in range(200):
        maps = torch.randn(8, 4, 16, 16) + 3
        optimizer.zero_grad()
        (0.1 * rsg(maps, targets, False).losses["cesc"]).backward()
        optimizer.step()
    assert float((rsg.centers[0].detach() - 3).abs().max()) < 1


def test_unused_parameters_can_be_left_without_gradient() -> None:
    maps, labels = batch(BATCHES["both"])
    for active, unused in ((False, "transform"), (True, "contrast")):
        module = generator(zero_unused=False)
        sum(module(maps, labels, active).losses.values()).backward()
        assert all((weight.grad is None) == name.startswith(unused) for name, weight in module.named_parameters())


def test_the_classifier_trains_the_backbone_through_real_rows_and_the_transformation_through_new_ones() -> None:
    maps, labels = batch(BATCHES["both"])
    module = generator(zero_unused=False)
    out = module(maps, labels, True)
    weights = torch.randn(out.maps.shape, generator=torch.Generator().manual_seed(0))
    (out.maps * weights).sum().backward()
    assert torch.equal(maps.grad, weights[:5])
    trained = {name for name, weight in module.named_parameters() if weight.grad is not None}
    assert trained == {"transform.weight", "transform.bias"}


def test_the_contrastive_network_goes_on_learning_after_a_generation() -> None:
    maps, labels = batch(BATCHES["both"])
    module = generator()
    module(maps, labels, True)
    module(maps, labels, False).losses["cesc"].backward()
    assert all(weight.requires_grad for weight in module.parameters())
    assert module.contrast[0].weight.grad.any()


# Numbers


def test_losses_are_float32_and_maps_keep_their_type_under_autocast() -> None:
    maps, labels = batch(BATCHES["both"])
    module = generator()
    plain = module(maps, labels, True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module(maps, labels, True).losses["mv"], plain.losses["mv"])
        half = module(maps.bfloat16(), labels, True)
    assert half.maps.dtype == torch.bfloat16
    for name, loss in plain.losses.items():
        assert half.losses[name].dtype == torch.float32
        torch.testing.assert_close(half.losses[name], loss, rtol=0.02, atol=0.0)


# Options


def test_the_head_is_the_most_frequent_share_whatever_the_order_of_classes() -> None:
    assert generator().is_tail.tolist() == [True, False, True, False, True]
    assert RareFeatureGenerator([7, 7, 7, 7], 4, head_share=0.5).is_tail.tolist() == [False, False, True, True]
    assert RareFeatureGenerator([1, 9], 4).is_tail.tolist() == [True, False]  # at least one
    assert RareFeatureGenerator(pd.Series([9, 1], [1, 0]), 4).is_tail.tolist() == [True, False]
    assert generator(head_classes=[4, 0]).is_tail.tolist() == [False, True, True, True, False]


def test_wrong_arguments_are_refused() -> None:
    for strength in (0.0, 1.5):
        with pytest.raises(InputError, match=rf"expected a strength in \(0, 1\]; got {strength}"):
            generator(strength=strength)
    with pytest.raises(InputError, match="in the order of the class ids; got a dict; pass for example"):
        RareFeatureGenerator({"cat": 9, "owl": 1}, 4)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"expected a head_share in \(0, 1\); got 1.0"):
        generator(head_share=1.0)
    with pytest.raises(InputError, match=r"expected head_classes from 0 to 4; got \[5\]"):
        generator(head_classes=[5])
    with pytest.raises(InputError, match=r"expected head_classes from 0 to 4; got \['cat'\]; pass class ids"):
        generator(head_classes=["cat"])
    with pytest.raises(InputError, match="at least one head and one tail class; got 5 head classes of 5"):
        generator(head_classes=range(5))
    with pytest.raises(InputError, match="expected layout 'official' or 'per_location'; got 'rows'"):
        generator(layout="rows")
    with pytest.raises(InputError, match="expected center_gradient 'exact' or 'bounded'; got 'slow'"):
        generator(center_gradient="slow")
    maps, labels = batch([1, 0])
    with pytest.raises(InputError, match=r"expected maps \(B, 4, H, W\) and targets \(B,\); got \(2, 3, 3, 2\)"):
        generator()(maps[:, :3], labels, True)


TWO_RANKS = """
import os, sys, torch, torch.distributed as dist
from torch import nn
from generators.rare_features import RareFeatureGenerator
class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stage, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 4)
        self.rsg = RareFeatureGenerator([9, 8, 2, 1], 4, n_centers=2, contrast_channels=3, head_share=0.5)
    def forward(self, images, targets, active):
        out = self.rsg(self.stage(images), targets, active)
        loss = nn.functional.cross_entropy(self.head(out.maps.mean((2, 3))), out.targets)
        return loss + 0.1 * out.losses["cesc"] + 0.01 * out.losses["mv"]
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
torch.manual_seed(rank)
network = nn.parallel.DistributedDataParallel(Network())
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
batches = ([0, 1, 2], [3, 0, 1]), ([0, 1, 2], [0, 1]), ([0, 2], [2, 3, 3])  # then ranks without a tail, without a head
for active in (False, True):
    for targets in batches:
        targets = torch.tensor(targets[rank])
        optimizer.zero_grad()
        network(torch.randn(len(targets), 3, 2, 2), targets, active).backward()
        optimizer.step()
mine = torch.cat([weight.detach().flatten() for weight in network.parameters()])
others = [torch.empty_like(mine) for _ in range(2)]
dist.all_gather(others, mine)
assert torch.equal(*others)
assert mine.isfinite().all()
dist.barrier()
os._exit(0)  # gloo's threads now and then abort an interpreter that winds down
"""


def test_two_ranks_stay_equal_when_only_one_of_them_generates(on_two_ranks: Callable[[str], None]) -> None:
    on_two_ranks(TWO_RANKS)
