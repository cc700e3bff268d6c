"""A backbone of the user's own: "package.module:Class", a subclass of `Backbone` that Python can import."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rebalance.backbones.base import Backbone
from rebalance.backbones.weights_file import load_weights
from rebalance.errors import InputError, nearest

SEPARATOR = ":"
"""Between module and class; no other name of a backbone has one."""


def own_class(name: str) -> type[Backbone]:
    """The class that `name` names; its module is imported, and nothing but a subclass of `Backbone` is ever called.

    Raises:
        InputError: No such module or class, or one that is no backbone.
    """
    module_name, _, class_name = name.partition(SEPARATOR)
    wanted = "package.module:Class, a subclass of rebalance.backbones.Backbone"
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module does when it is imported
        raise InputError(
            wanted,
            f"{name!r}: {type(error).__name__}: {error}",
            "mend it, or name a module that Python finds; for a file in this folder, PYTHONPATH=. before the command",
        ) from error
    backbones: dict[str, type[Backbone]] = {key: value for key, value in vars(module).items() if _is_own(value)}
    if class_name not in backbones:
        advice = nearest(class_name, backbones) if backbones else f"derive a class from Backbone in {module_name}"
        raise InputError(wanted, f"{name!r}", advice)
    return backbones[class_name]


def own_backbone(
    name: str, *, image_size: int, weights: Path | None = None, options: Mapping[str, Any] | None = None
) -> Backbone:
    """An object of the class, which is given `image_size` and its own `Backbone.options`.

    Args:
        name: As in `own_class`.
        image_size: Height and width of the images, px.
        weights: A local file of its state dict (.safetensors, or .pth that loads with `weights_only`).
        options: What an earlier object's `options` were, to build it anew.

    Raises:
        InputError: No such class, one that does not keep what `Backbone` promises, or weights of another network.
    """
    try:
        backbone = own_class(name)(image_size=image_size, **(options or {}))
        backbone.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            images = torch.randn(1, 3, image_size, image_size)
            maps = backbone.stage_maps(images)
            found = [m.shape[1] for m in maps if m.ndim == 4], backbone.pool(maps[-1]).shape[1]
            promised = list(backbone.stage_channels), backbone.n_features
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{name}(image_size={image_size}) to turn images of this size into features",
            f"{type(error).__name__}: {error}",
            "see rebalance.backbones.Backbone for what a backbone has to have",
        ) from error
    if found != promised:
        raise InputError(
            f"maps (B, D, H, W) after each stage of {name} with D = stage_channels, and features (B, n_features)",
            f"maps {found[0]} and features {found[1]}; promised were {promised[0]} and {promised[1]}",
            "let stages, stage_channels and n_features say the same",
        )
    if weights is not None:
        load_weights(backbone, weights, left_out=())
    backbone.train()
    return backbone


def _is_own(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Backbone) and value is not Backbone
