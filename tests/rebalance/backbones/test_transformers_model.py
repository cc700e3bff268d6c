"""Models of transformers as backbones: tiny ones of random weights, saved and loaded like real ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from rebalance.backbones import TransformersBackbone, build_backbone
from rebalance.backbones.weights_file import IMAGENET
from rebalance.errors import InputError

SIZE = 16
LAYERS: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TOKENS = {**LAYERS, "image_size": SIZE, "patch_size": 4}
WIDE = {**TOKENS, "intermediate_size": 32}
TEXT = {**LAYERS, "intermediate_size": 32, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
SMALL = {"hidden_sizes": [8, 16], "depths": [1, 1]}

MODELS: dict[str, Callable[[], Any]] = {
    "vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**WIDE)),
    "deit": lambda: transformers.DeiTModel(transformers.DeiTConfig(**WIDE)),
    "dinov2": lambda: transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**TOKENS)),
    "clip": lambda: transformers.CLIPModel(transformers.CLIPConfig(vision_config=WIDE, text_config=TEXT)),
    "siglip": lambda: transformers.SiglipModel(transformers.SiglipConfig(vision_config=WIDE, text_config=TEXT)),
    "beit": lambda: transformers.BeitModel(transformers.BeitConfig(**WIDE)),
    "swin": lambda: transformers.SwinModel(
        transformers.SwinConfig(
            embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2, image_size=SIZE, patch_size=2
        )
    ),
    "convnext": lambda: transformers.ConvNextModel(transformers.ConvNextConfig(**SMALL, num_stages=2)),
    "resnet": lambda: transformers.ResNetModel(transformers.ResNetConfig(**SMALL, embedding_size=8)),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model; not to be changed."""
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            torch.manual_seed(0)
            model = MODELS[name]()
            for parameter in model.parameters():
                nn.init.normal_(parameter, std=0.3)
            model.save_pretrained(root / name)
        return root / name

    return folder


def images(size: int = SIZE) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def net(backbone: TransformersBackbone) -> Any:
    return backbone.stages[0].net


@torch.no_grad()
@pytest.mark.parametrize("name", ["beit", "swin", "convnext", "resnet"])
def test_features_are_what_the_model_itself_pools(name: str, saved: Callable[[str], Path]) -> None:
    backbone = TransformersBackbone(image_size=SIZE, weights=saved(name)).eval()
    found = backbone(images())
    assert found.shape == (2, backbone.n_features) == (2, 16)
    assert torch.equal(found, net(backbone)(images()).pooler_output.flatten(1))


@torch.no_grad()
@pytest.mark.parametrize("size", [8, SIZE, 24])
@pytest.mark.parametrize(("name", "n_before"), [("vit", 1), ("deit", 2), ("dinov2", 5), ("clip", 1), ("siglip", 0)])
def test_maps_are_the_patches_without_the_tokens_before_them(
    name: str, n_before: int, size: int, saved: Callable[[str], Path]
) -> None:
    backbone = TransformersBackbone(image_size=size, weights=saved(name)).eval()
    more = {} if name == "dinov2" else {"interpolate_pos_encoding": True}
    tokens = net(backbone)(images(size), **more).last_hidden_state[:, n_before:]
    maps, side = backbone.run(images(size)), size // 4
    assert maps.shape == (2, 16, side, side)
    for row in range(side):
        assert torch.equal(maps[:, :, row].transpose(1, 2), tokens[:, row * side : (row + 1) * side])
    mean = tokens.mean(dim=1)
    expected = net(backbone).post_layernorm(mean) if name == "clip" else mean
    torch.testing.assert_close(backbone(images(size)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_that_learns_has_a_gradient_and_no_other(name: str, saved: Callable[[str], Path]) -> None:
    """A weight that gets none stops training with several processes."""
    backbone = TransformersBackbone(image_size=SIZE, weights=saved(name))
    assert all(module.training for module in backbone.modules())
    assert all(parameter.grad is None for parameter in backbone.parameters())
    (backbone(images()) ** 2).sum().backward()
    learning = {key for key, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert learning == {key for key, parameter in backbone.named_parameters() if parameter.grad is not None}
    fixed = {key.removeprefix("stages.0.net.") for key, _ in backbone.named_parameters()} - {
        key.removeprefix("stages.0.net.") for key in learning
    }
    assert all(key.startswith(("pooler.", "head.", "embeddings.mask_token")) for key in fixed)


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_it_is_rebuilt_from_its_options(name: str, saved: Callable[[str], Path]) -> None:
    backbone = build_backbone("transformers", image_size=SIZE, weights=saved(name)).eval()
    text = json.dumps(dict(backbone.options))
    assert str(saved(name)) not in text
    options = json.loads(text)
    again = build_backbone("transformers", image_size=SIZE, options=options).eval()
    assert not torch.equal(again(images()), backbone(images()))
    again.load_state_dict(backbone.state_dict())
    assert torch.equal(again(images()), backbone(images()))


def test_pixels_are_normalised_as_the_folder_says(tmp_path: Path, saved: Callable[[str], Path]) -> None:
    assert TransformersBackbone(image_size=SIZE, weights=saved("vit")).normalization == IMAGENET
    folder = shutil.copytree(saved("vit"), tmp_path / "vit")
    own, file = ((0.5, 0.4, 0.5), (0.5, 0.25, 0.5)), folder / "preprocessor_config.json"

    def found() -> object:
        return TransformersBackbone(image_size=SIZE, weights=folder).normalization

    transformers.ViTImageProcessor(image_mean=list(own[0]), image_std=list(own[1])).save_pretrained(folder)
    assert found() == own
    whole = {"image_processor": json.loads(file.read_text())}  # as processors of images and text save it
    file.unlink()
    (folder / "processor_config.json").write_text(json.dumps(whole))
    assert found() == own
    (folder / "processor_config.json").unlink()
    transformers.ViTImageProcessor(do_normalize=False).save_pretrained(folder)
    assert found() == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    file.write_text("{")
    with pytest.raises(InputError, match=r"a readable image processor; got .*vit: .*; save it again"):
        found()


def test_weights_that_the_features_need_may_not_be_missing(tmp_path: Path, saved: Callable[[str], Path]) -> None:
    folder = shutil.copytree(saved("vit"), tmp_path / "vit")
    weights = load_file(folder / "model.safetensors")
    assert "vit.pooler.dense.weight" not in weights  # a checkpoint of a classifier, which needs none
    lost = next(key for key in weights if key.endswith("layernorm.weight"))
    save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"all weights of ViTModel; got none for layernorm.weight; give the folder"):
        TransformersBackbone(image_size=SIZE, weights=folder)


def test_half_precision_is_loaded_as_float32(tmp_path: Path, saved: Callable[[str], Path]) -> None:
    transformers.ResNetModel.from_pretrained(saved("resnet")).half().save_pretrained(tmp_path)
    backbone = TransformersBackbone(image_size=SIZE, weights=tmp_path)
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}


def test_what_cannot_be_a_backbone_says_why(tmp_path: Path, saved: Callable[[str], Path]) -> None:
    def refused(message: str, weights: Path | None, size: int = SIZE, stem: str = "auto") -> None:
        with pytest.raises(InputError, match=message):
            build_backbone("transformers", image_size=size, stem=stem, weights=weights)

    refused("a folder with a transformers model; got none; give --weights FOLDER", None)
    refused("a folder with a transformers model; got no config.json in .*nowhere", tmp_path / "nowhere")
    refused("a torchvision backbone for a stem; got 'transformers'", saved("vit"), stem="small")
    refused("a vision model that turns images of 3 px into maps; got ViTModel: ", saved("vit"), size=3)
    unsafe = shutil.copytree(saved("resnet"), tmp_path / "unsafe")
    torch.save(load_file(unsafe / "model.safetensors"), unsafe / "pytorch_model.bin")
    (unsafe / "model.safetensors").unlink()
    refused("a transformers model with safetensors; got .*unsafe", unsafe)
    text = transformers.BertModel(transformers.BertConfig(**TEXT))
    text.save_pretrained(tmp_path / "text")
    refused("a vision model that turns images of 16 px into maps; got BertModel: ", tmp_path / "text")


DECODER = {f"decoder_{name}": value for name, value in {**LAYERS, "intermediate_size": 32}.items()}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: transformers.ViTMAEModel(transformers.ViTMAEConfig(**WIDE, **DECODER)), "it sees other patches each"),
        (
            lambda: transformers.YolosModel(
                transformers.YolosConfig(**{**WIDE, "image_size": [SIZE, SIZE]}, num_detection_tokens=7)
            ),
            "24 tokens, which are no square of patches",
        ),
        (
            lambda: transformers.BlipModel(transformers.BlipConfig(vision_config=WIDE, text_config=TEXT)),
            "AutoModel knows; got BlipVisionConfig in .*; choose another",
        ),
    ],
    ids=["mae", "yolos", "blip"],
)
def test_models_whose_tokens_are_no_map_are_refused(model: Callable[[], Any], message: str, tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=message):
        TransformersBackbone(image_size=SIZE, weights=tmp_path)


def test_weights_of_another_shape_are_named(tmp_path: Path, saved: Callable[[str], Path]) -> None:
    folder = shutil.copytree(saved("vit"), tmp_path / "grey")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_channels": 1}))
    with pytest.raises(
        InputError, match=r"got \(16, 3, 4, 4\) for .*projection.weight, which should be \(16, 1, 4, 4\)"
    ):
        TransformersBackbone(image_size=SIZE, weights=folder)


def test_colours_in_another_order_are_refused(tmp_path: Path, saved: Callable[[str], Path]) -> None:
    folder = shutil.copytree(saved("vit"), tmp_path / "turned")
    transformers.MobileViTImageProcessor().save_pretrained(folder)
    with pytest.raises(InputError, match="red, green and blue in this order; got MobileViTImageProcessor"):
        TransformersBackbone(image_size=SIZE, weights=folder)
