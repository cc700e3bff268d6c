"""What `--amp auto` means on a device: a rule, not a measurement, so that a run and its repetition agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from pipelines.config import TrainConfig

Amp = Literal["auto", "no", "bf16", "fp16"]
_SMALL = 16
"""Up to this image size (px) a step is overhead more than arithmetic, and float32 costs little."""


def resolve_amp(amp: Amp, device: torch.device, image_size: int) -> Amp:
    """The precision of forward passes: `amp`, or for "auto" bf16 where the device computes it faster, else "no".

    Args:
        amp: "auto", "no", "bf16" or "fp16".
        device: On which the passes run.
        image_size: Height and width of the images, px.
    """
    if amp != "auto":
        return amp
    return "bf16" if image_size > _SMALL and _computes_bf16(device) else "no"


def resolve_generator_amp(amp: Literal["auto", "no", "bf16"], device: torch.device) -> Literal["no", "bf16"]:
    """The precision of a generator; "auto" is float32 on a CPU, where images of any CPU are to be nearly the same."""
    if amp != "auto":
        return amp
    return "bf16" if device.type == "cuda" and _computes_bf16(device) else "no"


def with_precision(config: TrainConfig, device: torch.device, image_size: int) -> TrainConfig:
    """`config` with its precision resolved."""
    amp = resolve_amp(config.optimization.amp, device, image_size)
    return replace(config, optimization=replace(config.optimization, amp=amp))


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
