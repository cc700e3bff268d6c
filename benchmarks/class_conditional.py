"""Images per second of the class-conditional generator, in training and in sampling, beside its bound.

    python benchmarks/class_conditional.py --device cuda --compile --json class_conditional.json
    OMP_NUM_THREADS=1 python benchmarks/class_conditional.py --size 8 --training-batch 64 --sampling-batch 64

Network, batches and precision are the defaults of `rebalance synthesize` for images of the size. "bound" is the same
network on one constant batch: forward, backward and update in training, and in sampling a forward pass of twice the
batch a step, for guidance. Each figure is the median of several updates or batches, after two that are not counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import torch
from stable_diffusion import matmul_rate, seconds
from torch.utils.flop_counter import FlopCounterMode

from generators.base import Job
from generators.class_conditional import ClassConditionalGenerator, NetworkSettings, build_unet
from generators.class_conditional_sizes import settings_for
from generators.class_conditional_training import TrainingSettings, train_class_conditional
from generators.compiling import compile_in_place
from pipelines.precision import resolve_generator_amp

CLASSES = tuple("0123456789")
UNCOUNTED = 2


class EnoughError(Exception):
    """All updates that are wanted were timed."""


def time_training(network: NetworkSettings, settings: TrainingSettings, device: torch.device, n: int) -> float:
    """Seconds an update."""
    images = torch.zeros((4096, 3, network.image_size, network.image_size), dtype=torch.uint8, device=device)
    labels = torch.arange(len(images)) % len(CLASSES)
    ends: list[float] = []

    def count(update: int, loss: float) -> None:
        ends.append(now(device))
        if len(ends) == UNCOUNTED + n + 1:
            raise EnoughError

    with suppress(EnoughError):
        train_class_conditional(images, labels, network, settings, progress=count)
    return median(after - before for before, after in list(pairwise(ends))[UNCOUNTED:])


def time_sampling(generator: ClassConditionalGenerator, steps: int, n: int) -> float:
    """Seconds a batch."""
    device = next(generator.unet.parameters()).device
    jobs = [Job("", "", i % len(CLASSES), i, i, {"steps": steps, "guidance": 2.0}) for i in range(generator.batch_size)]
    return usual(lambda: generator.generate(jobs), device, n)


def time_constant_update(network: NetworkSettings, settings: TrainingSettings, device: torch.device, n: int) -> float:
    """Seconds of forward, backward and update on a batch that stays."""
    unet = build_unet(network).to(device).train()
    if settings.compile:
        compile_in_place(unet)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4)
    x, t, labels = constant_batch(network, settings.batch_size, device)

    def update() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.amp == "bf16"):
            loss = unet(x, t, class_labels=labels).sample.float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return usual(update, device, n)


def time_constant_steps(
    network: NetworkSettings, settings: TrainingSettings, batch: int, steps: int, device: torch.device, n: int
) -> float:
    """Seconds of the forward passes that a batch takes."""
    unet = build_unet(network).to(device).eval()
    if settings.compile:
        compile_in_place(unet)
    x, t, labels = constant_batch(network, 2 * batch, device)

    @torch.no_grad()
    def passes() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.amp == "bf16"):
            for _ in range(steps):
                unet(x, t, class_labels=labels)

    return usual(passes, device, n)


def constant_batch(network: NetworkSettings, n: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    x = torch.randn(n, network.n_colours, network.image_size, network.image_size, device=device)
    t, labels = torch.full((n,), 500, device=device), torch.arange(n, device=device) % len(CLASSES)
    return x, t, labels


def usual(work: Callable[[], Any], device: torch.device, n: int) -> float:
    return median([seconds(work, device) for _ in range(UNCOUNTED + n)][UNCOUNTED:])


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def teraflop(network: NetworkSettings, steps: int) -> float:
    """Arithmetic of a sampled image, 10¹² operations; nothing is computed."""
    with torch.device("meta"):
        unet = build_unet(network)
        x = torch.empty(2, network.n_colours, network.image_size, network.image_size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            unet(x, torch.zeros(2), class_labels=torch.zeros(2, dtype=torch.long))
    return float(steps * counter.get_total_flops() / 1e12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=32, help="px")
    parser.add_argument("--channels", type=int, nargs="+", help="of the U-Net; by default by size")
    parser.add_argument("--training-batch", type=int, help="by default by size")
    parser.add_argument("--sampling-batch", type=int, help="by default 512 on a GPU, else 128")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--amp", choices=("auto", "bf16", "no"), default="auto")
    parser.add_argument("--repeats", type=int, default=5, help="updates and batches that are timed")
    parser.add_argument("--compile", action="store_true", help="also with --compile-generator")
    options = parser.parse_args()

    device = torch.device(options.device)
    usual_settings = settings_for(options.size, tuple(options.channels) if options.channels else None)
    network = NetworkSettings(CLASSES, usual_settings.image_size, usual_settings.channels, layers=usual_settings.layers)
    amp = resolve_generator_amp(options.amp, device)
    training_batch = options.training_batch or usual_settings.batch_size
    sampling_batch = options.sampling_batch or (512 if device.type == "cuda" else 128)
    rows = []
    for compiled in (False, True)[: 1 + options.compile]:
        settings = TrainingSettings(usual_settings.updates, training_batch, amp=amp, compile=compiled)
        generator = ClassConditionalGenerator(
            build_unet(network).to(device), network, batch_size=sampling_batch, amp=amp, compile=compiled
        )
        for what, batch, ours, bound in (
            (
                "training",
                training_batch,
                time_training(network, settings, device, options.repeats),
                time_constant_update(network, settings, device, options.repeats),
            ),
            (
                "sampling",
                sampling_batch,
                time_sampling(generator, options.steps, options.repeats),
                time_constant_steps(network, settings, sampling_batch, options.steps, device, options.repeats),
            ),
        ):
            row = {
                "what": what,
                "compiled": compiled,
                "images_per_second": batch / ours,
                "share_of_bound": bound / ours,
            }
            rows.append(row)
            print(
                f"{what}{', compiled' if compiled else '':<12} {row['images_per_second']:10.1f} images/s, "
                f"{row['share_of_bound']:.2f} of the bound",
                flush=True,
            )
    work = teraflop(network, options.steps)
    best = max(row["images_per_second"] for row in rows if row["what"] == "sampling")
    rate = matmul_rate(device, torch.bfloat16 if amp == "bf16" else torch.float32)
    setting = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "threads": torch.get_num_threads(),
        "size": network.image_size,
        "channels": network.channels,
        "training_batch": training_batch,
        "sampling_batch": sampling_batch,
        "steps": options.steps,
        "amp": amp,
    }
    figures = {
        "rows": rows,
        "minutes_for_65000_images": 65_000 / best / 60,
        "teraflop_per_image": work,
        "share_of_matmul": best * work / rate,
    }
    for key, value in [*setting.items(), *list(figures.items())[1:]]:
        print(f"{key:<28}{value:.4g}" if isinstance(value, float) else f"{key:<28}{value}")
    if options.json:
        options.json.write_text(json.dumps({"setting": setting, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
