from __future__ import annotations

import pytest
import torch
from torch import nn

from rebalance.backbones.stages import cut_into_stages, has_small_stem, keep_size


def halving(inputs: int, outputs: int, kernel: int = 3, padding: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, 2, padding)


def sizes(stages: list[nn.Sequential], size: int) -> list[int]:
    maps, found = torch.zeros(1, 3, size, size), []
    for stage in stages:
        maps = stage(maps)
        found.append(maps.shape[-1])
    return found


def test_a_stage_begins_where_maps_shrink_and_the_first_holds_the_stem() -> None:
    layers = [nn.ReLU(), halving(3, 4), nn.ReLU(), halving(4, 8), nn.Conv2d(8, 6, 1), nn.MaxPool2d(2), nn.ReLU()]
    stages, channels = cut_into_stages(layers)
    assert [list(stage) for stage in stages] == [layers[:3], layers[3:5], layers[5:]]
    assert channels == [4, 6, 6]
    assert all(layer.training for layer in layers)


@pytest.mark.parametrize(
    ("stem", "size", "small"),
    [("auto", 64, True), ("auto", 65, False), ("small", 224, True), ("imagenet", 8, False)],
)
def test_small_images_have_the_small_stem(stem: str, size: int, small: bool) -> None:
    assert has_small_stem(stem, size) is small


@pytest.mark.parametrize(
    "layers",
    [
        [halving(3, 4), halving(4, 8), halving(8, 8)],
        [halving(3, 4, 7, 3), nn.MaxPool2d(3, 2, 1), halving(4, 8)],
        [nn.Conv2d(3, 4, 4, 4), halving(4, 8, 2, 0)],  # ConvNeXt's patches
        [halving(3, 4, 3, 0), halving(4, 8), halving(8, 8)],
    ],
)
def test_strides_that_make_maps_four_times_as_small_are_taken_out(layers: list[nn.Module]) -> None:
    stages, _ = cut_into_stages(layers)
    before = sizes(stages, 64)
    kept = keep_size(stages)
    assert kept is not None
    assert sizes(kept, 64)[-1] == 4 * before[-1]
    assert sizes(stages, 64) == before, "the stages that were given are left alone"
    for one, other in zip(nn.ModuleList(kept).parameters(), nn.ModuleList(stages).parameters(), strict=True):
        assert torch.equal(one, other)


def test_maps_that_shrink_by_other_means_are_left_as_they_are() -> None:
    stages, _ = cut_into_stages([nn.AvgPool2d(2), nn.Conv2d(3, 4, 1), halving(4, 8), halving(8, 8)])
    assert keep_size(stages) is None
