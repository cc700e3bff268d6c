"""Images augmented per CPU-second: batched on tensors against the classic PIL pipeline.

    OMP_NUM_THREADS=1 python benchmarks/augmentation.py --json augmentation.json

Both go from raw pixels to a normalised batch. The PIL side is what the papers' scripts run in their loader workers:
transforms on one image at a time, ToTensor, Normalize, and the stacking of the batch. The batched side draws its
parameters, augments and normalises. The two are measured by turns in one process on one thread; a row's figure is the
median of its rounds. With `--device cuda` the batched side is measured by the clock, the PIL side as before.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms as T

from rebalance.data.augmentation import normalize, parse_views

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
POLICIES = ("auto", "strong", "sim", "strong,sim,sim")


class PILBlur:
    """MoCo's blur."""

    def __call__(self, image: Image.Image) -> Image.Image:  # noqa: D102
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


class TensorCutout:
    """Cutout as in the scripts: a mask on the tensor, before Normalize."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, image: Tensor) -> Tensor:  # noqa: D102
        height, width = image.shape[-2:]
        y, x, half = random.randrange(height), random.randrange(width), self.side // 2
        mask = torch.ones(height, width)
        mask[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 0.0
        return image * mask


def pil_view(name: str, size: int) -> Callable[[Image.Image], Tensor]:
    """One view of the classic pipeline."""
    crop_and_flip = [T.RandomCrop(size, padding=max(1, size // 8)), T.RandomHorizontalFlip()]
    finish = [T.ToTensor(), T.Normalize(MEAN, STD)]
    if name == "auto":
        return T.Compose([*crop_and_flip, *finish])
    if name == "strong":
        policy = T.AutoAugment(T.AutoAugmentPolicy.CIFAR10, fill=128)
        return T.Compose([*crop_and_flip, policy, finish[0], TensorCutout(size // 2), finish[1]])
    colour = [T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8), T.RandomGrayscale(0.2)]
    blur = T.RandomApply([PILBlur()], p=0.5)
    return T.Compose([T.RandomResizedCrop(size, scale=(0.2, 1.0)), crop_and_flip[1], *colour, blur, *finish])


def pil_pipeline(name: str, images: np.ndarray) -> Callable[[], Tensor]:
    """A batch by the classic pipeline."""
    views = [pil_view(view, images.shape[1]) for view in name.split(",")]

    def run() -> Tensor:
        pictures = (Image.fromarray(image) for image in images)
        return torch.stack([torch.stack([view(picture) for view in views]) for picture in pictures])

    return run


def batched_pipeline(name: str, images: np.ndarray, device: torch.device) -> Callable[[], Tensor]:
    """A batch by `rebalance.data.augmentation`."""
    views = parse_views(name, image_size=images.shape[1])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
    mean, std = torch.tensor(MEAN, device=device), torch.tensor(STD, device=device)
    generator = torch.Generator().manual_seed(0)

    def run() -> Tensor:
        return normalize(views(pixels, views.draw(len(pixels), generator)), mean, std)

    return run


def seconds(run: Callable[[], Tensor], repeats: int, device: torch.device) -> float:
    """Seconds a batch: of the CPU, or of the clock where the device is another."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    for _ in range(repeats):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (clock() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9, help="turns of both sides; the median is reported")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="of the batched side")
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args()

    torch.set_num_threads(1)
    shape = (args.batch_size, args.image_size, args.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else "cpu, 1 thread",
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "pillow": PIL.__version__,
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print(f"batch {args.batch_size}, {args.image_size} pixels, median of {args.rounds} rounds\n")
    print(f"{'policy':16}{'PIL images/s':>14}{'batched images/s':>18}{'ratio':>8}{'µs/image':>11}")
    rows = []
    for name in POLICIES:
        pil, batched = pil_pipeline(name, images), batched_pipeline(name, images, args.device)
        seconds(pil, 1, torch.device("cpu")), seconds(batched, 3, args.device)
        times = [(seconds(pil, 1, torch.device("cpu")), seconds(batched, 10, args.device)) for _ in range(args.rounds)]
        slow, fast = (statistics.median(column) / args.batch_size for column in zip(*times, strict=True))
        rows.append({"policy": name, "pil": 1 / slow, "batched": 1 / fast, "ratio": slow / fast})
        print(f"{name:16}{1 / slow:14,.0f}{1 / fast:18,.0f}{slow / fast:8.1f}{fast * 1e6:11.1f}", flush=True)
    if args.json:
        settings = {"batch_size": args.batch_size, "image_size": args.image_size, "rounds": args.rounds}
        args.json.write_text(json.dumps({"machine": machine, "settings": settings, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
