from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rebalance.backbones import TimmBackbone, build_backbone
from rebalance.backbones.weights_file import IMAGENET
from rebalance.errors import InputError

timm = pytest.importorskip("timm")

ROWS = ("resnet18", "convnext_atto", "efficientnet_b0", "mobilenetv3_small_050", "regnety_002")
TOKENS = ("vit_tiny_patch16_224", "eva02_tiny_patch14_224", "deit_tiny_distilled_patch16_224")
OTHERS = ("swin_tiny_patch4_window7_224", "pvt_v2_b0", "selecsls42")  # channels last, inside or at the end; lists
SIZE = 64


def reference(name: str, **settings: Any) -> Any:
    """timm's network with its classifier, and statistics of its own."""
    torch.manual_seed(5)
    net = timm.create_model(name, **settings)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def saved(net: nn.Module, folder: Path) -> Path:
    path = folder / "a.safetensors"
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("name", [*ROWS, *OTHERS])
def test_a_weights_file_gives_the_features_of_timm(name: str, tmp_path: Path) -> None:
    net = reference(name, **({"img_size": SIZE} if name.startswith("swin") else {}))
    backbone = build_backbone(f"timm/{name}", image_size=SIZE, stem="imagenet", weights=saved(net, tmp_path)).eval()
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = net.forward_head(net.forward_features(images), pre_logits=True)
        torch.testing.assert_close(backbone(images), expected)
    assert backbone.n_features == expected.shape[1]
    assert backbone.name == f"timm/{name}"


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_are_pooled_over_patches_without_the_tokens_before_them(name: str, tmp_path: Path) -> None:
    net = reference(name, img_size=SIZE)
    backbone = build_backbone(f"timm/{name}", image_size=SIZE, weights=saved(net, tmp_path)).eval()
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        tokens = net.forward_features(images)[:, net.num_prefix_tokens :]
        expected = net.fc_norm(tokens.mean(1)) if name.startswith("eva") else tokens.mean(1)
        torch.testing.assert_close(backbone(images), expected)
        (maps,) = backbone.stage_maps(images)
    assert maps.shape == (2, backbone.stage_channels[0], 4, 4)
    torch.testing.assert_close(maps.flatten(2).transpose(1, 2), tokens)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(("size", "stem", "first"), [(64, "imagenet", 2), (32, "auto", 1), (128, "auto", 2)])
def test_rows_of_layers_are_stages(name: str, size: int, stem: str, first: int) -> None:
    backbone = build_backbone(f"timm/{name}", image_size=size, stem=stem).eval()
    with torch.no_grad():
        maps = backbone.stage_maps(torch.randn(2, 3, size, size))
        torch.testing.assert_close(backbone.pool(maps[-1]), backbone.pool(backbone.run(maps[0], 1)))
    assert tuple(m.shape[1] for m in maps) == backbone.stage_channels
    assert len(maps) == (4 if name.startswith("convnext") else 5)
    assert maps[-1].shape[-1] == size // (32 if first == 2 else 8)
    if not name.startswith("convnext"):
        assert maps[0].shape[-1] == size // first


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "hiera_tiny_224"])
def test_all_that_learns_is_trained_and_nothing_is_held_twice(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(f"timm/{name}", image_size=64)
    assert all(module.training for module in backbone.modules())
    backbone(torch.randn(2, 3, 64, 64)).square().sum().backward()
    for key, parameter in backbone.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
    idle = {
        key.removeprefix("stages.0.net.")
        for key, parameter in backbone.named_parameters()
        if not parameter.requires_grad
    }
    assert idle == ({"head.norm.weight", "head.norm.bias"} if "hiera" in name else set())
    held = backbone.state_dict(keep_vars=True)
    assert len(held) == len({id(value) for value in held.values()}), "safetensors refuses what is held twice"


@pytest.mark.parametrize("name", ["timm/resnet18", "timm/vit_tiny_patch16_224"])
def test_built_anew_and_copied_it_is_the_same(name: str) -> None:
    backbone = build_backbone(name, image_size=48).eval()
    again = build_backbone(name, image_size=48, options=backbone.options).eval()
    again.load_state_dict(backbone.state_dict())
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(again(images), backbone(images))
        torch.testing.assert_close(copy.deepcopy(backbone)(images), backbone(images))


def test_the_same_seed_gives_the_same_weights() -> None:
    built = []
    for _ in range(2):
        torch.manual_seed(0)
        built.append(TimmBackbone("timm/resnet18", image_size=32))
    one, other = built
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)


def test_pixels_are_normalised_as_the_tag_says_where_there_are_weights(tmp_path: Path) -> None:
    path = saved(reference("vit_tiny_patch16_224"), tmp_path)
    half = (0.5, 0.5, 0.5)
    assert TimmBackbone("timm/vit_tiny_patch16_224", image_size=32, weights=path).normalization == (half, half)
    assert TimmBackbone("timm/vit_tiny_patch16_224", image_size=32).normalization is None
    path = saved(reference("resnet18"), tmp_path)
    assert TimmBackbone("timm/resnet18.tv_in1k", image_size=32, weights=path).normalization == IMAGENET


def test_positions_are_interpolated_to_the_size_of_the_images(tmp_path: Path) -> None:
    net = reference("vit_tiny_patch16_224")
    backbone = TimmBackbone("timm/vit_tiny_patch16_224", image_size=32, weights=saved(net, tmp_path))
    assert backbone.stages[0].net.pos_embed.shape == (1, 2 * 2 + 1, 192)
    assert torch.equal(backbone.stages[0].net.blocks[3].mlp.fc1.weight, net.blocks[3].mlp.fc1.weight)


def test_files_without_a_classifier_with_another_and_of_pth_are_read(tmp_path: Path) -> None:
    images = torch.randn(1, 3, SIZE, SIZE)
    for n_classes in (0, 7):
        net = reference("resnet18", num_classes=n_classes)
        torch.save({"state_dict": net.state_dict(), "epoch": 3}, tmp_path / "a.pth")
        backbone = TimmBackbone("timm/resnet18", image_size=SIZE, stem="imagenet", weights=tmp_path / "a.pth").eval()
        with torch.no_grad():
            torch.testing.assert_close(
                backbone(images), net.forward_head(net.forward_features(images), pre_logits=True)
            )
        assert "state_dict" not in backbone.head.pretrained_cfg


def test_weights_that_lack_a_layer_or_are_of_another_model_are_refused(tmp_path: Path) -> None:
    net = reference("resnet18")
    state = {key: value for key, value in net.state_dict().items() if not key.startswith("layer3.1.bn2")}
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"weights of timm/resnet18 in part.safetensors; got .*layer3.1.bn2.weight"):
        TimmBackbone("timm/resnet18", weights=tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"weights of timm/resnet34 in a.safetensors; got .*layer1.2.conv1"):
        TimmBackbone("timm/resnet34", weights=saved(net, tmp_path))
    with pytest.raises(InputError, match=r"weights of timm/vit_tiny_patch16_224 in a.safetensors"):
        TimmBackbone("timm/vit_tiny_patch16_224", weights=saved(net, tmp_path))
    with pytest.raises(InputError, match="a weights file; got no file at"):
        TimmBackbone("timm/resnet18", weights=tmp_path / "missing.safetensors")
    (tmp_path / "b.pth").write_bytes(b"\x80\x04N.")
    with pytest.raises(InputError, match="a readable weights file"):
        TimmBackbone("timm/resnet18", weights=tmp_path / "b.pth")


@pytest.mark.parametrize(
    ("name", "size", "stem", "message"),
    [
        ("timm/resnet81", 32, "auto", "a model of timm; got 'timm/resnet81'; did you mean timm/resnet18"),
        ("timm/resnet18.ours", 32, "auto", "got 'timm/resnet18.ours'; did you mean .*timm/resnet18.a1_in1k"),
        ("timm/hf-hub:timm/resnet18", 32, "auto", "."),
        ("timm/qqqqq", 32, "auto", "a model of timm; .*list_models"),
        ("timm/vit_tiny_patch16_224", 32, "small", "first strides can be left out, for --stem small"),
        ("timm/vit_tiny_patch16_224", 8, "auto", "turns images of 8 px into maps|that .* can be made for"),
        ("timm/inception_v3", 32, "auto", "a model that turns images of 32 px into maps"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, size: int, stem: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_backbone(name, image_size=size, stem=stem)
