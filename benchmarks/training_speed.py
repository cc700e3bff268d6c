"""Images trained on per second, ResNet-32 at batch 128: the toolkit's step beside a classic script's, and its bound.

    OMP_NUM_THREADS=1 python benchmarks/training_speed.py [--updates N] [--rounds R] [--device cpu] [--json FILE]

"classic" is what the papers' scripts run: PIL crop and flip in DataLoader workers, NCHW, float32. "ours" is the loop of
`rebalance train` with its defaults, images as uint8 on the device; "ours, float32" the same without bf16, "ours,
--compile" with what a minute of compilation gives. "bound" is forward, backward and update of the same network, layout
and precision on one constant batch, not compiled. On a CPU a rate is images per CPU-second of all processes, which
other work on the machine disturbs least, and all but the classic script take turns update by update; on a GPU it is by
the clock. Each figure is the median of R rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from pipelines import DataConfig, ModelConfig, ObjectiveConfig, OptimizationConfig, TrainConfig
from pipelines.loop import autocast, training_steps
from pipelines.open_data import open_data
from pipelines.optimization import build_optimizer
from pipelines.precision import with_precision
from pipelines.preparation import prepare_training
from pipelines.session import start_session
from rebalance.backbones import build_backbone
from rebalance.classifier import Classifier
from rebalance.data.table import ImageTable, Splits

BATCH, SIZE, N_CLASSES, N_IMAGES = 128, 32, 10, 12_800
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
Steps = Iterator[Any]
"""One update for each `next`."""


class Pictures(Dataset[tuple[Tensor, int]]):
    """Arrays, augmented one by one with PIL."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.transform = T.Compose(
            [T.RandomCrop(SIZE, padding=4), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[row])), int(self.labels[row])


def rates_of(measured: dict[str, Steps], updates: int, device: torch.device) -> dict[str, float]:
    """Images per second of each over `updates` updates, after three to warm up."""
    for steps in measured.values():
        for _ in range(3):
            next(steps)
    seconds = dict.fromkeys(measured, 0.0)
    in_a_row = 1 if device.type == "cpu" else updates
    for _ in range(updates // in_a_row):
        for name, steps in measured.items():
            begin = clock(device)
            for _ in range(in_a_row):
                next(steps)
            seconds[name] += clock(device) - begin
    return {name: updates * BATCH / value for name, value in seconds.items()}


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() + sum(_children_seconds())


def _children_seconds() -> Iterator[float]:
    """CPU time of the loader's workers, which live until their loader is dropped."""
    ticks = 100.0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            yield (int(fields[11]) + int(fields[12])) / ticks


def classic(images: np.ndarray, labels: np.ndarray, device: torch.device) -> Steps:
    network = Classifier(build_backbone("resnet32", image_size=SIZE), N_CLASSES).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(Pictures(images, labels), BATCH, shuffle=True, num_workers=2, drop_last=True)
    while True:
        for batch, targets in loader:
            loss = F.cross_entropy(network(batch.to(device)), targets.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield


def constant(network: nn.Module, amp: str, device: torch.device) -> Steps:
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    batch = torch.randn(BATCH, 3, SIZE, SIZE, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(N_CLASSES, (BATCH,), device=device)
    while True:
        with autocast(device, amp):
            logits = network(batch)
        F.cross_entropy(logits.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        yield


def ours(
    images: np.ndarray, labels: np.ndarray, device: torch.device, amp: Any, *, compiled: bool = False
) -> tuple[Steps, str]:
    table = ImageTable(images, labels, tuple(map(str, range(N_CLASSES))))
    config = TrainConfig(
        data=DataConfig(data="made", image_size=SIZE),
        model=ModelConfig(model="resnet32"),
        objective=ObjectiveConfig(method="ce"),
        optimization=OptimizationConfig(epochs=200, batch_size=BATCH, amp=amp),
    )
    config = with_precision(config, device, SIZE)
    opened = open_data(config.data, device, Splits(table))
    prepared = prepare_training(config, opened, device)
    if compiled:
        prepared.method.compile()
    steps = training_steps(
        prepared.method,
        prepared.method,
        build_optimizer(prepared.method, config.optimization),
        prepared.data,
        prepared.batches,
        replace(config.optimization, updates=None),
        seed=0,
    )
    return steps, config.optimization.amp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = start_session(arguments.device).device
    stream = np.random.default_rng(0)
    images = stream.integers(0, 256, (N_IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.sort(stream.integers(0, N_CLASSES, N_IMAGES))
    default, amp = ours(images, labels, device, "auto")
    in_turn = {
        "ours": default,
        "ours, float32": ours(images, labels, device, "no")[0],
        "ours, --compile": ours(images, labels, device, "auto", compiled=True)[0],
        "bound": constant(Classifier(build_backbone("resnet32", image_size=SIZE), N_CLASSES), amp, device),
    }
    rates: dict[str, list[float]] = {name: [] for name in ("classic", *in_turn)}
    for _ in range(arguments.rounds):
        alone = rates_of({"classic": classic(images, labels, device)}, arguments.updates, device)
        for name, rate in {**alone, **rates_of(in_turn, arguments.updates, device)}.items():
            rates[name].append(rate)
    median = {name: statistics.median(values) for name, values in rates.items()}
    unit = "images/s" if device.type == "cuda" else "images per CPU-second"
    print(f"ResNet-32, batch {BATCH}, {device}, default precision {amp}; {unit}")
    for name, rate in median.items():
        ratios = f"{rate / median['classic']:5.2f} × classic   {rate / median['bound']:5.2f} × bound"
        print(f"{name:16} {rate:10.0f}   {ratios}")
    if arguments.json:
        machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        facts = {**machine, "device": str(device), "precision": amp, "unit": unit, "rates": rates}
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
