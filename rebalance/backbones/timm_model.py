"""Any image model of timm by its name there: rows of layers in stages, other models as one stage."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from rebalance.backbones.base import Backbone, fill_stages
from rebalance.backbones.stages import PROBE, cut_into_stages, has_small_stem, keep_size
from rebalance.backbones.timm_files import check_timm, timm_net
from rebalance.errors import InputError

Layout: TypeAlias = Literal["maps", "channels last", "tokens"]


@final
class TimmBackbone(Backbone):
    """A model of timm without its classifier; nothing is downloaded and nothing unpickled.

    Of a model that is a row of layers, a new stage begins where maps become smaller; others are one stage. Features are
    pooled as timm does it, but of tokens: the mean over all patches, not the class token. Weights that take no part in
    the features are fixed.

    Args:
        name: "timm/" and timm's name, such as "timm/resnet18" or "timm/vit_small_patch14_dinov2.lvd142m".
        image_size: Height and width of the images, px.
        stem: "imagenet" (as published), "small" (the first layers without the stride of 4; rows of layers only), or
            "auto" by `image_size`.
        weights: A local weights file (.safetensors, or .pth that loads with `weights_only`) in timm's layout, with the
            classifier or without.

    Raises:
        InputError: timm is not installed or has no such model; weights of another model; a model that does not turn
            images of this size into maps, or has no small stem.
    """

    def __init__(self, name: str, *, image_size: int = 224, stem: str = "auto", weights: Path | None = None) -> None:
        super().__init__()
        check_timm(name)
        net = timm_net(name, image_size, weights)
        if weights is not None:
            self.normalization = tuple(net.pretrained_cfg["mean"]), tuple(net.pretrained_cfg["std"])
        rows = _rows_of_layers(net)
        small = None
        try:
            if rows:
                stages, channels = cut_into_stages([layer for row in rows.values() for layer in row])
                for child in rows:  # what is left of `net` is the head
                    setattr(net, child, nn.Identity())
                self.head = net
                small = keep_size(stages) if has_small_stem(stem, image_size) else None
                fill_stages(self, small or stages, channels)
            else:
                fill_stages(self, [_LastMaps(net, image_size)], [net.num_features])
            self._n_features = _fix_idle(self, image_size)
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise InputError(
                f"a model that turns images of {image_size} px into maps",
                f"{name!r}: {error}",
                "try the size it was trained at with --image-size, or another model",
            ) from error
        if stem == "small" and small is None:
            raise InputError(
                "a model whose first strides can be left out, for --stem small", repr(name), "leave it out"
            )

    @property
    def n_features(self) -> int:
        """See `Backbone`."""
        return self._n_features

    def pool(self, maps: Tensor) -> Tensor:
        """See `Backbone`; with what the model has between the mean and its classifier."""
        last = self.stages[0]
        features: Tensor = (
            last.pool(maps) if isinstance(last, _LastMaps) else self.head.forward_head(maps, pre_logits=True)
        )
        return features


class _LastMaps(nn.Module):
    """Images (B, 3, `size`, `size`) → the last maps (B, D, h, w) of a model that is no row of layers."""

    def __init__(self, net: Any, size: int) -> None:
        super().__init__()
        self.net = net.eval()
        with torch.no_grad():
            shape = net.forward_features(torch.zeros(1, 3, size, size)).shape
        self.layout: Layout = (
            "tokens" if len(shape) == 3 else "maps" if shape[1] == net.num_features else "channels last"
        )
        self.n_before = int(getattr(net, "num_prefix_tokens", 0) or 0)  # class token and registers
        self.side = math.isqrt(shape[1] - self.n_before)
        if self.layout == "tokens" and self.side**2 != shape[1] - self.n_before:
            raise ValueError(f"its {shape[1] - self.n_before} tokens are no square of patches")

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.net.forward_features(images)
        if self.layout == "tokens":
            maps = maps[:, self.n_before :].reshape(-1, self.side, self.side, maps.shape[-1])
        return maps if self.layout == "maps" else maps.permute(0, 3, 1, 2)

    def pool(self, maps: Tensor) -> Tensor:
        if self.layout == "tokens":
            norm = getattr(self.net, "fc_norm", None)
            features = maps.mean(dim=(2, 3))
            return features if norm is None else norm(features)
        native = maps if self.layout == "maps" else maps.permute(0, 2, 3, 1)
        pooled: Tensor = self.net.forward_head(native, pre_logits=True)
        return pooled


def _rows_of_layers(net: Any) -> dict[str, list[nn.Module]]:
    """The first children of `net` whose layers, one after another, give its maps; none where it is made otherwise."""
    rows: dict[str, list[nn.Module]] = {}
    images = maps = torch.linspace(-1, 1, 3 * PROBE**2).reshape(1, 3, PROBE, PROBE)
    if net.pretrained_cfg.get("fixed_input_size"):
        return {}  # it takes images of one size, and not that of the probe
    net.eval()
    try:
        with torch.no_grad():
            expected = net.forward_features(images)
            for name, child in net.named_children():
                rows[name] = list(_flat(child))
                for layer in rows[name]:
                    maps = layer(maps)
                    if maps.ndim != 4 or maps.shape[2] != maps.shape[3]:
                        return {}  # tokens, or channels last
                if maps.shape == expected.shape and torch.equal(maps, expected):
                    return rows if maps.shape[1] == net.num_features else {}
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError, AssertionError):
        return {}  # it takes larger images, or its children are called in another way
    return {}


def _flat(module: nn.Module) -> list[nn.Module]:
    if type(module) is not nn.Sequential:
        return [module]
    return [layer for child in module for layer in _flat(child)]


def _fix_idle(backbone: Backbone, size: int) -> int:
    """Fix the weights that take no part in the features; the length of the features."""
    backbone.eval()
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        features = backbone(torch.randn(1, 3, size, size))
        features.sum().backward()
    for parameter in backbone.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    backbone.train()
    return int(features.shape[1])
