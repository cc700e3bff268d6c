"""What `--amp auto` means on a machine: a rule where its speed is known, else a short measurement; a run keeps it."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from pipelines.config import TrainConfig
from pipelines.console import log, warn_once
from rebalance.devices import kept_random_state
from rebalance.files import read_json
from rebalance.ranks import broadcast, is_main

Amp = Literal["auto", "no", "bf16", "fp16"]
_SMALL = 16
"""Up to this image size (px) a step is overhead more than arithmetic, and float32 costs little."""
_WORTH_IT = 1.2
"""bf16 has to be so many times as fast as float32: less does not pay for its rounding, and may be noise."""
_SLOW = 0.5
"""Below this, the user is told what bf16 costs here."""


def resolve_amp(amp: Amp, device: torch.device, image_size: int) -> Amp:
    """The precision of forward passes: `amp`, or for "auto" bf16 where the device computes it faster, else "no".

    All ranks call it together, and take rank 0's answer.

    Args:
        amp: "auto", "no", "bf16" or "fp16".
        device: On which the passes run.
        image_size: Height and width of the images, px.
    """
    answer = amp
    if is_main() and amp == "auto":
        answer = "bf16" if image_size > _SMALL and _prefers_bf16(device) else "no"
    return broadcast(answer)


def resolve_generator_amp(amp: Literal["auto", "no", "bf16"], device: torch.device) -> Literal["no", "bf16"]:
    """The precision of a generator; "auto" is float32 on a CPU, where images of any CPU are to be nearly the same."""
    warn_of_slow_bf16(amp, device)
    if amp != "auto":
        return amp
    return "bf16" if device.type == "cuda" and _is_known_for_bf16(device) else "no"


def with_precision(
    config: TrainConfig, device: torch.device, image_size: int, folder: Path | None = None, auto: Amp | None = None
) -> TrainConfig:
    """`config` with its precision resolved.

    Args:
        config: Of the training.
        device: On which it runs.
        image_size: Height and width of its images, px.
        folder: Its run folder: what "auto" meant where it was begun holds to its end, on whatever machine.
        auto: What "auto" means, where that is known.
    """
    amp = config.optimization.amp
    if amp == "auto":
        saved = saved_precision(folder) if folder is not None and is_main() else None
        auto = broadcast(saved) or auto  # the others may look after rank 0 has written it
        amp = auto or resolve_amp(amp, device, image_size)
        warn_of_slow_bf16(amp, device, "go on where it was begun, or start again with --no-resume")
    else:
        warn_of_slow_bf16(amp, device)
    return replace(config, optimization=replace(config.optimization, amp=amp))


def saved_precision(folder: Path) -> Amp | None:
    """What a run that was begun in `folder` computes in, or the first arm of a pipeline; None where none was."""
    for file in (folder / "classes.json", *sorted(folder.glob("arms/*/seed-*/classes.json"))):
        if file.exists() and (saved := read_json(file).get("precision")) is not None:
            return saved  # type: ignore[no-any-return]  # as `claim_data` wrote it
    return None


def warn_of_slow_bf16(amp: str, device: torch.device, advice: str = "take --amp no, or a GPU") -> None:
    """Say what bf16 costs on a CPU that has no instructions for it."""
    if amp == "bf16" and device.type == "cpu" and is_main() and not _is_known_for_bf16(device):
        speed = bf16_speed()
        if speed < _SLOW:
            warn_once(f"this CPU computes bf16 {1 / speed:.0f} times slower than float32: {advice}")


def _prefers_bf16(device: torch.device) -> bool:
    if _is_known_for_bf16(device):
        return True
    if device.type != "cpu":
        return False
    speed = bf16_speed()
    log.debug("bf16 is %.2f times as fast as float32 on this CPU", speed)
    return speed >= _WORTH_IT


def _is_known_for_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


@cache
def bf16_speed() -> float:
    """How many times as fast as in float32 this CPU trains convolutions in bf16; measured once in a process."""
    with kept_random_state(torch.device("cpu")), torch.enable_grad():
        layers = [nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()] * 2
        network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        images = torch.randn(16, 64, 16, 16).contiguous(memory_format=torch.channels_last)

        def seconds(in_bf16: bool) -> float:
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
                features = network(images)
            features.float().square().mean().backward()
            return time.perf_counter() - began

        for in_bf16 in (False, True):
            seconds(in_bf16)  # builds the kernels
        in_float32 = min(seconds(False) for _ in range(5))
        first = seconds(True)
        if first > in_float32 / _SLOW:
            return in_float32 / first
        return in_float32 / min(first, *(seconds(True) for _ in range(4)))
