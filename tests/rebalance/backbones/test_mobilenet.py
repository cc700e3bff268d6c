from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from rebalance.backbones import MobileNetV2, build_backbone
from rebalance.errors import InputError


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    """torchvision's network with statistics of its own."""
    torch.manual_seed(5)
    net = torchvision.models.mobilenet_v2()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


@pytest.mark.parametrize(
    ("size", "stem", "sizes"),
    [(64, "auto", (64, 64, 32, 16, 8)), (96, "auto", (48, 24, 12, 6, 3)), (64, "imagenet", (32, 16, 8, 4, 2))],
)
def test_five_stages_with_smaller_strides_for_small_images(size: int, stem: str, sizes: tuple[int, ...]) -> None:
    backbone = build_backbone("mobilenet_v2", image_size=size, stem=stem).eval()
    with torch.no_grad():
        maps = backbone.stage_maps(torch.randn(1, 3, size, size))
    assert tuple(m.shape[-1] for m in maps) == sizes
    assert tuple(m.shape[1] for m in maps) == backbone.stage_channels == (16, 24, 32, 96, 1280)
    assert backbone.n_features == 1280


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_weights_file_gives_the_features_of_its_network(tmp_path: Path, reference: nn.Module, suffix: str) -> None:
    path = tmp_path / f"mobilenet.{suffix}"
    if suffix == "pth":
        torch.save(reference.state_dict(), path)
    else:
        save_file(reference.state_dict(), path)
    backbone = MobileNetV2(stem="imagenet", weights=path).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(reference.get_submodule("classifier")(backbone(images)), reference(images))


def test_both_stems_have_the_same_weights(tmp_path: Path, reference: nn.Module) -> None:
    save_file(reference.state_dict(), tmp_path / "a.safetensors")
    small, large = (MobileNetV2(stem=stem, weights=tmp_path / "a.safetensors") for stem in ("small", "imagenet"))
    for one, other in zip(small.parameters(), large.parameters(), strict=True):
        assert torch.equal(one, other)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(torchvision.models.resnet18().state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"features.0.0.weight of shape \(32, 3, 3, 3\) in a.safetensors; got nothing"):
        MobileNetV2(weights=tmp_path / "a.safetensors")


def test_names_are_those_of_build_backbone() -> None:
    assert build_backbone("mobilenet_v2", image_size=32).name == "mobilenet_v2"
    with pytest.raises(InputError, match="got 'mobilenet'; did you mean 'mobilenet_v2'"):
        build_backbone("mobilenet", image_size=32)
