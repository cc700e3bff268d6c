from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from rebalance.backbones import TorchvisionConvNet, build_backbone
from rebalance.backbones.torchvision_convnet import FAMILIES
from rebalance.errors import InputError

ONE_OF_EACH = (
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "shufflenet_v2_x0_5",
)


def reference(name: str) -> nn.Module:
    """torchvision's network with statistics of its own."""
    torch.manual_seed(5)
    net = torchvision.models.get_model(name, weights=None)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


@pytest.fixture(scope="module")
def mobilenet() -> nn.Module:
    return reference("mobilenet_v2")


def test_every_family_is_tested() -> None:
    assert {name.split("_")[0].rstrip("0123456789") for name in ONE_OF_EACH} == set(FAMILIES)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_weights_file_gives_the_network_of_torchvision(name: str, tmp_path: Path) -> None:
    net = reference(name)
    save_file(net.state_dict(), tmp_path / "a.safetensors")
    backbone = build_backbone(name, image_size=96, stem="imagenet", weights=tmp_path / "a.safetensors").eval()
    images = torch.randn(2, 3, 96, 96)
    head = net.get_submodule("fc" if hasattr(net, "fc") else "classifier")
    last = head if isinstance(head, nn.Linear) else head[-1]
    with torch.no_grad():
        features = backbone(images)
        assert features.shape == (2, backbone.n_features)
        torch.testing.assert_close(last(features), net(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_stages_end_where_maps_become_smaller(name: str) -> None:
    for size, stem in ((64, "imagenet"), (32, "auto")):
        backbone = build_backbone(name, image_size=size, stem=stem).eval()
        images = torch.randn(2, 3, size, size)
        with torch.no_grad():
            maps = backbone.stage_maps(images)
            torch.testing.assert_close(backbone.pool(maps[-1]), backbone(images))
        sizes = [m.shape[-1] for m in maps]
        assert tuple(m.shape[1] for m in maps) == backbone.stage_channels
        if stem == "imagenet":
            assert sizes == [32, 16, 8, 4, 2][-len(sizes) :]
        else:
            assert sizes == [32, 32, 16, 8, 4][-len(sizes) :], "a stride of 4 is taken back"


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_all_of_it_is_trained(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, image_size=32)
    assert all(module.training for module in backbone.modules())
    backbone(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert not [key for key, parameter in backbone.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("name", ["convnext_tiny", "densenet121"])
def test_images_that_are_lost_before_the_last_layer_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"images that are large enough for {name}, .*--stem small; got 16 px"):
        build_backbone(name, image_size=16, stem="imagenet")
    assert build_backbone(name, image_size=16).training


@pytest.mark.parametrize(
    ("size", "stem", "sizes"),
    [(64, "auto", (64, 64, 32, 16, 8)), (96, "auto", (48, 24, 12, 6, 3)), (64, "imagenet", (32, 16, 8, 4, 2))],
)
def test_mobilenet_has_the_stages_of_its_paper(size: int, stem: str, sizes: tuple[int, ...]) -> None:
    backbone = build_backbone("mobilenet_v2", image_size=size, stem=stem).eval()
    with torch.no_grad():
        maps = backbone.stage_maps(torch.randn(1, 3, size, size))
    assert tuple(m.shape[-1] for m in maps) == sizes
    assert tuple(m.shape[1] for m in maps) == backbone.stage_channels == (16, 24, 32, 96, 1280)
    assert backbone.n_features == 1280


def test_files_of_pth_are_read_as_well(tmp_path: Path, mobilenet: nn.Module) -> None:
    torch.save(mobilenet.state_dict(), tmp_path / "a.pth")
    backbone = TorchvisionConvNet("mobilenet_v2", stem="imagenet", weights=tmp_path / "a.pth").eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(mobilenet.get_submodule("classifier")(backbone(images)), mobilenet(images))


@pytest.mark.parametrize("name", ["mobilenet_v2", "convnext_tiny", "densenet121"])
def test_both_stems_have_the_same_weights(name: str, tmp_path: Path) -> None:
    save_file(reference(name).state_dict(), tmp_path / "a.safetensors")
    small, large = (TorchvisionConvNet(name, stem=s, weights=tmp_path / "a.safetensors") for s in ("small", "imagenet"))
    for one, other in zip(small.parameters(), large.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_names_in_torchvisions_own_files_of_densenet_are_known(tmp_path: Path) -> None:
    net = reference("densenet121")
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value
        for key, value in net.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    save_file(old, tmp_path / "a.safetensors")
    backbone = TorchvisionConvNet("densenet121", weights=tmp_path / "a.safetensors").eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net.get_submodule("classifier")(backbone(images)), net(images))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(torchvision.models.resnet18().state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"features.0.0.weight of shape \(32, 3, 3, 3\) in a.safetensors; got nothing"):
        TorchvisionConvNet("mobilenet_v2", weights=tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("name", "near"),
    [("mobilenet", "mobilenet_v2"), ("efficientnet_b9", r"efficientnet_b\d"), ("convnext_tinny", "convnext_tiny")],
)
def test_names_are_those_of_build_backbone(name: str, near: str) -> None:
    assert build_backbone("mobilenet_v2", image_size=32).name == "mobilenet_v2"
    with pytest.raises(InputError, match=f"got '{name}'; did you mean '{near}'"):
        build_backbone(name, image_size=32)
