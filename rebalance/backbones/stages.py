"""Layers one after another → stages; a new one begins where maps shrink, and for small images the first ones do not."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from rebalance.backbones.base import Backbone
from rebalance.errors import InputError

SMALL_IMAGE = 64
"""Images up to this size (px) get the small stem under "auto": a stride of 4 before the first block loses them."""
PROBE = 64  # px: networks of convolutions can be halved to 2 px from it
_STEM = 4  # the stride of the stem, which small images do without


def has_small_stem(stem: str, image_size: int) -> bool:
    """Whether "auto", "imagenet" or "small" is the small stem for images of `image_size` px."""
    return stem == "small" or (stem == "auto" and image_size <= SMALL_IMAGE)


def cut_into_stages(layers: Sequence[nn.Module]) -> tuple[list[nn.Sequential], list[int]]:
    """Stages, and the channels after each; the first ends before maps shrink for the second time.

    Args:
        layers: Layers that turn images into maps, in order; left in training mode.
    """
    stages: list[list[nn.Module]] = []
    channels: list[int] = []
    maps = torch.zeros(1, 3, PROBE, PROBE)
    with torch.no_grad():
        for layer in layers:
            before = maps.shape[-1]
            maps = layer.eval()(maps)
            layer.train()
            if not stages or (maps.shape[-1] < before and before < PROBE):
                stages.append([])
                channels.append(0)
            stages[-1].append(layer)
            channels[-1] = maps.shape[1]
    return [nn.Sequential(*stage) for stage in stages], channels


def keep_size(stages: Sequence[nn.Sequential]) -> list[nn.Sequential] | None:
    """The stages without the strides of the first ones, as far as they make maps four times as small.

    Weights stay the same, and `stages` as they are. None where maps become smaller by other means than the strides of
    convolutions and maxima.
    """
    kept = [copy.deepcopy(stage).eval() for stage in stages]
    maps = after = torch.zeros(1, 3, PROBE, PROBE)
    with torch.no_grad():
        for stage, own in zip(stages, kept, strict=True):
            before = maps.shape[-1]
            maps = stage.eval()(maps)
            stage.train()
            if before > PROBE // _STEM:
                _without_strides(own)
            try:
                after = own(after)
            except RuntimeError:  # branches of it have become unequal
                return None
    return [own.train() for own in kept] if after.shape[-1] == _STEM * maps.shape[-1] else None


def check_size(backbone: Backbone, image_size: int, name: str) -> None:
    """Refuse images that the network has lost before its last layer; tried for sizes below `PROBE`.

    Raises:
        InputError: They are too small.
    """
    if image_size >= PROBE:
        return
    backbone.eval()
    try:
        with torch.no_grad():
            backbone(torch.zeros(1, 3, image_size, image_size))
    except RuntimeError as error:
        raise InputError(
            f"images that are large enough for {name}, by --image-size or with --stem small",
            f"{image_size} px: {error}",
            "choose larger ones, the small stem, or another --model",
        ) from error
    backbone.train()


def _without_strides(stage: nn.Sequential) -> None:
    for parent, name, module in list(_children(stage)):
        if isinstance(module, nn.MaxPool2d):
            setattr(parent, name, nn.Identity())
        elif isinstance(module, nn.Conv2d) and module.stride != (1, 1):
            module.stride = (1, 1)
            if border := _border(module):
                setattr(parent, name, nn.Sequential(nn.ZeroPad2d(border), module))


def _border(conv: nn.Conv2d) -> tuple[int, int, int, int] | None:
    """Left, right, top, bottom: what a convolution without stride lacks to keep the size, as ConvNeXt's of patches."""
    if type(conv) is not nn.Conv2d or isinstance(conv.padding, str):
        return None  # others bring borders of their own
    height, width = (conv.dilation[k] * (conv.kernel_size[k] - 1) - 2 * conv.padding[k] for k in range(2))
    return (width // 2, width - width // 2, height // 2, height - height // 2) if height > 0 or width > 0 else None


def _children(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in module.modules():
        for name, child in parent.named_children():
            yield parent, name, child
