from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from rebalance.backbones import Backbone, CifarResNet, SmallCNN, TorchvisionResNet, build_backbone, default_backbone
from rebalance.errors import InputError


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "size", "n_stages", "n_features"),
    [
        ("small_cnn", 8, 3, 128),
        ("resnet20", 32, 3, 64),
        ("resnet32", 32, 3, 64),
        ("resnet56", 16, 3, 64),
        ("resnet18", 32, 4, 512),
        ("resnext50_32x4d", 64, 4, 2048),
    ],
)
def test_stages_run_apart_give_the_features_of_the_whole(name: str, size: int, n_stages: int, n_features: int) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, image_size=size).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        whole = backbone(images)
        assert whole.shape == (2, n_features)
        assert (len(backbone.stages), backbone.n_features) == (n_stages, n_features)
        maps = images
        for k in range(n_stages):
            maps = backbone.run(maps, k, k + 1)
            assert maps.shape[:2] == (2, backbone.stage_channels[k])
        torch.testing.assert_close(backbone.pool(maps), whole)
        torch.testing.assert_close(maps.mean(dim=(2, 3)), whole)
        torch.testing.assert_close(backbone.run(backbone.run(images, 0, 2), 2), maps)


def test_names_and_what_auto_means() -> None:
    assert [default_backbone(size) for size in (8, 16, 28, 64, 65, 224)] == [
        *["small_cnn"] * 2,
        *["resnet32"] * 2,
        *["resnet50"] * 2,
    ]
    assert isinstance(build_backbone("auto", image_size=8), SmallCNN)
    assert isinstance(build_backbone("auto", image_size=32), CifarResNet)


@pytest.mark.parametrize(("depth", "n"), [(20, 269_072), (32, 463_504), (56, 852_368)])
def test_cifar_resnets_have_the_size_of_the_paper_and_a_shortcut_without_parameters(depth: int, n: int) -> None:
    backbone = CifarResNet(depth)
    assert n_parameters(backbone) == n  # 0.27, 0.46, 0.85 M
    assert sum(isinstance(module, nn.Conv2d) for module in backbone.modules()) == depth - 1


def test_the_shortcut_takes_every_second_pixel_and_pads_channels_on_both_sides() -> None:
    backbone = CifarResNet(8, width=4)
    block = backbone.stages[1][0]
    for norm in (block.bn1, block.bn2):
        nn.init.zeros_(norm.weight)
        nn.init.zeros_(norm.bias)
    maps = torch.rand(1, 4, 6, 6)
    out = block(maps)
    assert out.shape == (1, 8, 3, 3)
    assert torch.equal(out[:, 2:6], maps[:, :, ::2, ::2])
    assert not out[:, [0, 1, 6, 7]].any()


@pytest.mark.parametrize("depth", [0, 2, 18, 33, 48])
def test_depths_between_are_refused(depth: int) -> None:
    with pytest.raises(InputError, match=r"a depth of 6 n \+ 2; got"):
        CifarResNet(depth)


@pytest.mark.parametrize(
    ("stem", "size", "small"), [("auto", 64, True), ("auto", 65, False), ("imagenet", 32, False), ("small", 224, True)]
)
def test_the_stem_follows_the_image_size_unless_named(stem: str, size: int, small: bool) -> None:
    backbone = TorchvisionResNet("resnet18", image_size=size, stem=stem)
    first = backbone.stages[0][0]
    assert first.kernel_size == ((3, 3) if small else (7, 7))
    assert any(isinstance(module, nn.MaxPool2d) for module in backbone.modules()) != small
    maps = backbone.run(torch.zeros(1, 3, 64, 64), 0, 1)
    assert maps.shape[-1] == (64 if small else 16)


@pytest.mark.parametrize(
    ("name", "stem", "message"),
    [
        ("resnet33", "auto", r"a backbone; got 'resnet33'; did you mean 'resnet\d+'"),
        ("vgg16", "auto", "a backbone; got 'vgg16'; valid: auto, "),
        ("resnext50", "auto", "a backbone; got 'resnext50'; .*resnext50_32x4d"),
        ("resnet50_sharp", "auto", "a backbone; got 'resnet50_sharp'"),
        ("resnet50", "imagnet", "a stem; got 'imagnet'; did you mean 'imagenet'"),
        ("resnet32", "imagenet", "a torchvision backbone for weights and the ImageNet stem; got 'resnet32'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, stem: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_backbone(name, image_size=32, stem=stem)


# Weights files


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    torch.manual_seed(5)
    net = torchvision.models.resnet18()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var)
    return net.eval()


def with_weights(path: Path, size: int = 224) -> Backbone:
    return build_backbone("resnet18", image_size=size, weights=path).eval()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_weights_file_gives_the_features_of_its_network(tmp_path: Path, reference: nn.Module, suffix: str) -> None:
    path = tmp_path / f"resnet18.{suffix}"
    state = reference.state_dict()
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        features = with_weights(path)(images)
        torch.testing.assert_close(reference.get_submodule("fc")(features), reference(images))


def test_with_a_small_stem_only_the_first_convolution_is_new(tmp_path: Path, reference: nn.Module) -> None:
    save_file(reference.state_dict(), tmp_path / "a.safetensors")
    backbone = with_weights(tmp_path / "a.safetensors", 32)
    assert backbone.stages[0][0].weight.shape == (64, 3, 3, 3)
    assert torch.equal(backbone.stages[0][1].weight, reference.get_parameter("bn1.weight"))
    assert torch.equal(backbone.stages[3][1].conv2.weight, reference.get_parameter("layer4.1.conv2.weight"))


def test_files_from_before_batches_were_counted_load(tmp_path: Path, reference: nn.Module) -> None:
    state = {key: value for key, value in reference.state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "old.pth")
    backbone = with_weights(tmp_path / "old.pth")
    assert torch.equal(backbone.stages[0][1].running_mean, reference.get_buffer("bn1.running_mean"))


def test_weights_beside_other_things_and_of_wrapped_networks_load(tmp_path: Path, reference: nn.Module) -> None:
    wrapped = {f"module.{key}": value for key, value in reference.state_dict().items()}
    compiled = {f"_orig_mod.{key}": value for key, value in reference.state_dict().items()}
    save_file(wrapped, tmp_path / "a.safetensors")
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "a.pth")
    torch.save({"model": {**reference.state_dict(), "extra": 3}}, tmp_path / "b.pth")
    torch.save({"model_state_dict": compiled}, tmp_path / "c.pth")
    for name in ("a.safetensors", "a.pth", "b.pth", "c.pth"):
        backbone = with_weights(tmp_path / name)
        assert torch.equal(backbone.stages[3][1].conv2.weight, reference.get_parameter("layer4.1.conv2.weight"))


def test_weights_of_another_network_are_refused(tmp_path: Path, reference: nn.Module) -> None:
    state = reference.state_dict()
    deeper = {**state, "layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)}
    other = {**state, "layer2.0.conv1.weight": torch.zeros(128, 64, 1, 1)}
    lacking = {key: value for key, value in state.items() if key != "layer3.0.bn1.bias"}
    for values, message in (
        (deeper, "the layers of the model in a.pth; got also layer1.2.conv1.weight"),
        (other, r"layer2.0.conv1.weight of shape \(128, 64, 3, 3\) in a.pth; got shape \(128, 64, 1, 1\)"),
        (lacking, r"layer3.0.bn1.bias of shape \(256,\) in a.pth; got nothing"),
    ):
        torch.save(values, tmp_path / "a.pth")
        with pytest.raises(InputError, match=message):
            with_weights(tmp_path / "a.pth")


def test_files_that_are_no_weights_are_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "unpickled",)

    torch.save({"conv1.weight": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save(3, tmp_path / "number.pth")
    torch.save({0: torch.zeros(1)}, tmp_path / "keys.pth")
    torch.save({"conv1.weight": 3}, tmp_path / "values.pth")
    for name in ("trap.pth", "text.pth", "text.safetensors", "number.pth", "keys.pth", "values.pth"):
        with pytest.raises(InputError, match=f"a readable weights file; got .*{name}"):
            with_weights(tmp_path / name)
    assert not (tmp_path / "unpickled").exists()
    with pytest.raises(InputError, match="a weights file; got no file at"):
        with_weights(tmp_path / "missing.pth")
