"""Backbones by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from rebalance.backbones.base import Backbone
from rebalance.backbones.cifar_resnet import CifarResNet
from rebalance.backbones.small_cnn import SmallCNN
from rebalance.backbones.torchvision_resnet import TorchvisionResNet
from rebalance.errors import InputError, nearest

_SMALL: dict[str, Callable[[], Backbone]] = {
    "small_cnn": SmallCNN,
    "resnet20": lambda: CifarResNet(20),
    "resnet32": lambda: CifarResNet(32),
    "resnet56": lambda: CifarResNet(56),
}
_TORCHVISION = re.compile(r"(wide_)?resne(t|xt)(18|34|50|101|152)(_\w+)?$")
_EXAMPLES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d")
STEMS = ("auto", "imagenet", "small")


def default_backbone(image_size: int) -> str:
    """The backbone that "auto" means: for digits the small CNN, for CIFAR ResNet-32, for photographs ResNet-50."""
    if image_size <= 16:
        return "small_cnn"
    return "resnet32" if image_size <= 64 else "resnet50"


def build_backbone(name: str, *, image_size: int, stem: str = "auto", weights: Path | None = None) -> Backbone:
    """A backbone by name: "auto", "small_cnn", "resnet20", "resnet32", "resnet56", or a torchvision ResNet/ResNeXt.

    Args:
        name: The name; "auto" chooses by `image_size`.
        image_size: Height and width of the images, px.
        stem: "auto", "imagenet" or "small"; torchvision networks only.
        weights: Local weights file; torchvision networks only.

    Raises:
        InputError: Unknown name or stem, or an option that the backbone lacks.
    """
    if stem not in STEMS:
        raise InputError("a stem", repr(stem), nearest(stem, STEMS))
    if name == "auto":
        name = default_backbone(image_size)
    if name in _SMALL:
        if weights is not None or stem == "imagenet":
            raise InputError(
                "a torchvision backbone for weights and the ImageNet stem", repr(name), "use --model resnet50, say"
            )
        return _SMALL[name]()
    if not _TORCHVISION.match(name) or not _exists(name):
        raise InputError("a backbone", repr(name), nearest(name, (*_SMALL, *_EXAMPLES, "auto")))
    return TorchvisionResNet(name, image_size=image_size, stem=stem, weights=weights)


def _exists(name: str) -> bool:
    import torchvision

    return name in torchvision.models.list_models(module=torchvision.models)


__all__ = ["Backbone", "CifarResNet", "SmallCNN", "TorchvisionResNet", "build_backbone", "default_backbone"]
