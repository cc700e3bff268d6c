"""Vision models of transformers from a checkpoint folder, such as ViT, DINOv2, CLIP, SigLIP, Swin, ConvNeXt."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from rebalance.backbones.base import Backbone, fill_stages
from rebalance.backbones.weights_file import IMAGENET
from rebalance.errors import InputError
from rebalance.quiet import quiet_transformers

_SAFE = {"local_files_only": True, "trust_remote_code": False}
_MAX_CLASS_TOKENS = 2  # DeiT has a second one, for distillation


@final
class TransformersBackbone(Backbone):
    """A vision model of transformers as one stage; its features are the mean over all places, not the class token.

    Of a model of images and text, the part for images. Weights that do not take part in the features, such as those of
    a pooler, are fixed. Nothing is downloaded, nothing unpickled, and no code of the folder is run.

    Args:
        image_size: Height and width of the images, px; positions are interpolated where the model can.
        weights: A folder that `save_pretrained` wrote, with safetensors.
        config: The model's own description, as in `options`, for a network without weights, in place of a folder.

    Raises:
        InputError: No such folder, weights that are missing or of other shapes, or a model that does not turn images
            of this size into one map, the same each time, of all their patches.
    """

    def __init__(
        self, *, image_size: int, weights: Path | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        with quiet_transformers():
            if weights is not None:
                net, missing = _from_folder(weights)
                self.normalization = _normalization(weights)
            elif config is not None:
                net, missing = _from_config(config), set()
            else:
                raise InputError(
                    "a folder with a transformers model", "none", "give --weights FOLDER, as save_pretrained wrote it"
                )
        last = _LastMaps(net)
        channels = _prepare(last, image_size, missing)
        fill_stages(self, [last], [channels])
        description = json.loads(net.config.to_json_string(use_diff=False))
        description.pop("_name_or_path", None)  # where it came from, on this machine
        self.options = {"config": description}

    def pool(self, maps: Tensor) -> Tensor:
        """See `Backbone`; a norm that the model has for pooled features comes behind the mean."""
        last = self.stages[0]
        assert isinstance(last, _LastMaps)
        features: Tensor = last.norm(super().pool(maps))
        return features


class _LastMaps(nn.Module):
    """Images (B, 3, H, W) → the last hidden state as maps (B, D, h, w)."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        parameters = inspect.signature(net.forward).parameters
        self.arguments = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in parameters else {}
        self.registers = int(getattr(net.config, "num_register_tokens", 0) or 0)
        self.after_pooling = ""

    @property
    def norm(self) -> nn.Module:
        """The model's norm of pooled features; for other models, nothing."""
        norm: nn.Module = self.net.get_submodule(self.after_pooling) if self.after_pooling else nn.Identity()
        return norm

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.net(images, **self.arguments).last_hidden_state
        if hidden.ndim == 4:
            return hidden
        side = math.isqrt(hidden.shape[1] - self.registers)  # before the patches stand class token and registers
        if hidden.shape[1] - self.registers - side * side > _MAX_CLASS_TOKENS:
            raise ValueError(f"its last hidden state has {hidden.shape[1]} tokens, which are no square of patches")
        patches = hidden[:, -side * side :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], side, side)  # len() would be a constant in an exported program


def _prepare(last: _LastMaps, size: int, missing: set[str]) -> int:
    """Channels of the maps; what takes no part is fixed, and what takes part must have had weights.

    Found by a pass with gradients, since the models differ in what they keep beside the features.
    """
    net = last.net.eval()
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            images = torch.randn(1, 3, size, size)
            maps = last(images)
            maps.sum().backward()
            if not torch.allclose(maps, last(images), rtol=1e-3, atol=1e-3):
                raise ValueError("it sees other patches each time")
    except Exception as error:
        raise InputError(
            f"a vision model that turns images of {size} px into maps",
            f"{type(net).__name__}: {error}",
            "try the size it was trained at with --image-size, or another model",
        ) from error
    channels = int(maps.shape[1])
    idle = {name for name, parameter in net.named_parameters() if parameter.grad is None}
    for name in ("layernorm", "post_layernorm", "pooler.layernorm"):  # ConvNeXt's, CLIP's, BEiT's: of pooled features
        if f"{name}.weight" in idle and net.get_parameter(f"{name}.weight").shape == (channels,):
            last.after_pooling = name
            idle -= {f"{name}.weight", f"{name}.bias"}
    if lost := sorted(missing - idle):
        raise InputError(
            f"all weights of {type(net).__name__}", f"none for {lost[0]}", "give the folder of a whole checkpoint"
        )
    for name, parameter in net.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(name not in idle)
    net.train()
    return channels


def _from_folder(folder: Path) -> tuple[Any, set[str]]:
    """The model, and the names of weights that the folder lacks."""
    from transformers import MODEL_MAPPING, AutoConfig, AutoModel

    if not (folder / "config.json").is_file():
        raise InputError(
            "a folder with a transformers model", f"no config.json in {folder}", "give what save_pretrained wrote"
        )
    try:
        config = AutoConfig.from_pretrained(folder, **_SAFE)
        config = getattr(config, "vision_config", config)
        if type(config) not in MODEL_MAPPING:
            raise InputError(
                "a model whose part for images transformers' AutoModel knows",
                f"{type(config).__name__} in {folder}",
                "choose another, such as ViT, DINOv2, CLIP, SigLIP, Swin or ConvNeXt",
            )
        net, report = AutoModel.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # and named below
            **_SAFE,
        )
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            "a transformers model with safetensors", f"{folder}: {error}", "save it again with save_pretrained"
        ) from error
    for name, found, expected in report["mismatched_keys"]:
        raise InputError(
            f"weights of the shapes that {folder / 'config.json'} says",
            f"{tuple(found)} for {name}, which should be {tuple(expected)}",
            "give both files as save_pretrained wrote them",
        )
    return net, set(report["missing_keys"])


def _from_config(config: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModel

    return AutoModel.from_config(AutoConfig.for_model(**config), trust_remote_code=False)


def _normalization(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixels by the folder's image processor; ImageNet's where it has none."""
    from transformers import AutoImageProcessor

    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        return IMAGENET
    try:
        processor = AutoImageProcessor.from_pretrained(folder, **_SAFE)
    except Exception as error:
        raise InputError(
            "a readable image processor", f"{folder}: {error}", "save it again, or remove its file for ImageNet's mean"
        ) from error
    if getattr(processor, "do_flip_channel_order", False):
        raise InputError(
            "an image processor that leaves red, green and blue in this order",
            f"{type(processor).__name__} of {folder}, which turns them round",
            "choose another model",
        )
    if not processor.do_normalize:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return tuple(processor.image_mean), tuple(processor.image_std)
