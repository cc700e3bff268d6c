"""Backbones by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rebalance.backbones.base import Backbone
from rebalance.backbones.cifar_resnet import CifarResNet
from rebalance.backbones.own_class import SEPARATOR, own_backbone, own_class
from rebalance.backbones.small_cnn import SmallCNN
from rebalance.backbones.timm_files import PREFIX, check_timm
from rebalance.backbones.timm_model import TimmBackbone
from rebalance.backbones.torchvision_convnet import FAMILIES, TorchvisionConvNet
from rebalance.backbones.torchvision_resnet import TorchvisionResNet
from rebalance.backbones.transformers_model import TransformersBackbone
from rebalance.backbones.unet import UNetEncoder
from rebalance.errors import InputError, nearest

_SMALL: dict[str, Callable[[], Backbone]] = {
    "small_cnn": SmallCNN,
    "resnet20": lambda: CifarResNet(20),
    "resnet32": lambda: CifarResNet(32),
    "resnet56": lambda: CifarResNet(56),
    "unet": UNetEncoder,
}
_RESNET = re.compile(r"(wide_)?resne(t|xt)(18|34|50|101|152)(_\w+)?$")
STEMS = ("auto", "imagenet", "small")


def default_backbone(image_size: int) -> str:
    """The backbone that "auto" means: for digits the small CNN, for CIFAR ResNet-32, for photographs ResNet-50."""
    if image_size <= 16:
        return "small_cnn"
    return "resnet32" if image_size <= 64 else "resnet50"


def build_backbone(
    name: str,
    *,
    image_size: int,
    stem: str = "auto",
    weights: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """A backbone by name.

    Args:
        name: "small_cnn", "resnet20", "resnet32", "resnet56", "unet", a convolutional network of torchvision, such as
            "resnet50" or "efficientnet_b0", "timm/" and a name of timm, "transformers", "package.module:Class", a
            subclass of `Backbone` of your own, or "auto", which chooses by `image_size`.
        image_size: Height and width of the images, px.
        stem: "auto", "imagenet" or "small"; networks of torchvision and timm only.
        weights: Local weights file of the network; for "transformers" the folder of a model.
        options: What `Backbone.options` gave, to build a backbone anew without its weights.

    Raises:
        InputError: Unknown name or stem, or an option that the backbone lacks.
    """
    if name == "auto":
        name = default_backbone(image_size)
    check_backbone(name, stem=stem, weights=weights)
    backbone: Backbone
    if name in _SMALL:
        backbone = _SMALL[name]()
    elif name == "transformers":
        backbone = TransformersBackbone(image_size=image_size, weights=weights, **(options or {}))
    elif SEPARATOR in name:
        backbone = own_backbone(name, image_size=image_size, weights=weights, options=options)
    elif name.startswith(PREFIX):
        backbone = TimmBackbone(name, image_size=image_size, stem=stem, weights=weights)
    elif _RESNET.match(name):
        backbone = TorchvisionResNet(name, image_size=image_size, stem=stem, weights=weights)
    else:
        backbone = TorchvisionConvNet(name, image_size=image_size, stem=stem, weights=weights)
    backbone.name = name
    return backbone


def check_backbone(name: str, *, stem: str = "auto", weights: Path | None = None) -> None:
    """Refuse what `build_backbone` cannot build, whatever the size of the images; nothing is built.

    Args:
        name: As there.
        stem: As there.
        weights: As there.

    Raises:
        InputError: Unknown name or stem, or weights or a stem that the backbone does not take.
    """
    if stem not in STEMS:
        raise InputError("a stem", repr(stem), nearest(stem, STEMS))
    if name != "transformers" and weights is not None and weights.is_dir():
        raise InputError(
            "a weights file", f"the folder {weights}", "use --model transformers for a folder that transformers wrote"
        )
    if name in _SMALL and (weights is not None or stem == "imagenet"):
        raise InputError(
            "a torchvision backbone for weights and the ImageNet stem", repr(name), "use --model resnet50, say"
        )
    if (name == "transformers" or SEPARATOR in name) and stem != "auto":
        raise InputError("a torchvision backbone for a stem", repr(name), "leave out --stem")
    if SEPARATOR in name:
        own_class(name)
    elif name.startswith(PREFIX):
        check_timm(name)
    elif name not in (*_SMALL, "transformers", "auto") and name not in _built():
        raise InputError("a backbone", repr(name), nearest(name, (*_SMALL, *_built(), "transformers", "auto")))


def _torchvision_names() -> list[str]:
    import torchvision

    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def _built() -> list[str]:
    return [name for name in _torchvision_names() if _RESNET.match(name) or name.startswith(FAMILIES)]


__all__ = [
    "Backbone",
    "CifarResNet",
    "SmallCNN",
    "TimmBackbone",
    "TorchvisionConvNet",
    "TorchvisionResNet",
    "TransformersBackbone",
    "UNetEncoder",
    "build_backbone",
    "check_backbone",
    "default_backbone",
]
