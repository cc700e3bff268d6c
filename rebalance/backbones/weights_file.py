"""Weights of a network from a local file; nothing is downloaded and nothing unpickled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rebalance.errors import InputError

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of pixels in [0, 1] that torchvision's weights expect, by channel."""
_BESIDE_OTHERS = ("state_dict", "model_state_dict", "model")
"""Where checkpoints of trainings hold the weights."""
_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)")
"""torchvision's own files of DenseNet are of a time when modules could be called "norm.1"."""


def load_weights(net: nn.Module, path: Path, *, left_out: tuple[str, ...]) -> None:
    """Load a file of the state dict of `net`, and of torchvision's networks of any age, into `net`.

    Args:
        net: The network.
        path: A .safetensors file, or a .pth file that loads with `weights_only`.
        left_out: Prefixes of entries that are not loaded, such as the classifier.

    Raises:
        InputError: No such file, no weights, or weights of another network.
    """
    if not path.is_file():
        raise InputError("a weights file", f"no file at {path}", "give the path of a .safetensors or .pth file")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _load(path)
        state = _unwrapped(content)
    except Exception as error:
        raise InputError("a readable weights file", f"{path}: {error}", "save it as .safetensors") from error
    wanted = net.state_dict()
    state = {_DENSE_LAYER.sub(r"\1", key): value for key, value in state.items()}
    kept: dict[str, Tensor] = {key: value for key, value in state.items() if not key.startswith(left_out)}
    for key, value in wanted.items():
        if key.startswith(left_out) or (key.endswith("num_batches_tracked") and key not in kept):
            continue  # files from before torch 0.4.1 do not count batches
        if key not in kept or kept[key].shape != value.shape:
            got = f"shape {tuple(kept[key].shape)}" if key in kept else "nothing"
            raise InputError(
                f"{key} of shape {tuple(value.shape)} in {path.name}", got, "use weights of the same model"
            )
    if more := [key for key in kept if key not in wanted]:
        raise InputError(f"the layers of the model in {path.name}", f"also {more[0]}", "name the model they are from")
    net.load_state_dict(kept, strict=False)


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _unwrapped(content: Any) -> dict[str, Tensor]:
    """The weights in what a training has saved: alone, or beside other things, of a network that was wrapped or not."""
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}")
    inner = next((content[key] for key in _BESIDE_OTHERS if isinstance(content.get(key), Mapping)), content)
    state = {key: value for key, value in inner.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not state:
        raise ValueError("it holds no tensors by name")
    for prefix in ("module.", "_orig_mod."):  # of DistributedDataParallel and torch.compile
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
