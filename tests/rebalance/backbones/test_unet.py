from __future__ import annotations

import pytest
import torch
from torch import nn

from rebalance.backbones import UNetEncoder, build_backbone


@pytest.mark.parametrize("size", [8, 19, 32])
def test_each_stage_halves_the_resolution_and_doubles_the_channels(size: int) -> None:
    backbone = build_backbone("unet", image_size=size)
    maps = backbone.stage_maps(torch.randn(2, 3, size, size))
    assert [tuple(m.shape) for m in maps] == [(2, 64 * 2**k, size // 2**k, size // 2**k) for k in range(4)]
    assert backbone.stage_channels == (64, 128, 256, 512)
    assert backbone(torch.randn(2, 3, size, size)).shape == (2, 512) == (2, backbone.n_features)


def test_stages_run_apart_give_the_features_of_the_whole() -> None:
    backbone = UNetEncoder(width=4).eval()
    images = torch.randn(2, 3, 16, 16)
    for stage in range(1, 4):
        torch.testing.assert_close(backbone.pool(backbone.run(backbone.run(images, 0, stage), stage)), backbone(images))


def test_a_stage_is_two_convolutions_of_three_pixels_after_a_maximum() -> None:
    backbone = UNetEncoder(width=4, n_stages=3)
    for k, stage in enumerate(backbone.stages):
        convolutions = [m for m in stage.modules() if isinstance(m, nn.Conv2d)]
        assert [(c.kernel_size, c.stride, c.out_channels) for c in convolutions] == [((3, 3), (1, 1), 4 * 2**k)] * 2
        assert sum(isinstance(m, nn.MaxPool2d) for m in stage.modules()) == (1 if k else 0)
        assert sum(isinstance(m, nn.BatchNorm2d) for m in stage.modules()) == 2
