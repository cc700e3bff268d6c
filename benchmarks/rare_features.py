"""Peak memory and time of the rare-sample generator (RSG) on the maps of a ResNet-50 at 224 pixels.

    OMP_NUM_THREADS=1 python benchmarks/rare_features.py --json rare_features.json

Each row is a forward and a backward pass in a process of its own; memory is what the process has at its highest beyond
what it had with the maps and the module built (on CUDA: what the allocator handed out). "formula" is the centre loss
as the original computes it, with its (N, K, C, H, W) tensors; run it with --batch-size 64 or with 20 GB to spare.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from generators.rare_feature_losses import center_loss
from generators.rare_features import RareFeatureGenerator

PARTS = ("centre loss", "warm-up", "generation", "formula")


def formula(maps: Tensor, centers: Tensor, assignment: Tensor) -> Tensor:
    """The centre loss as it stands in the paper."""
    squares = (maps[:, None] - centers[..., None, None]).square().flatten(2)
    return (assignment[:, None] @ squares).sum() / len(maps)


def megabytes(args: argparse.Namespace, field: str) -> float:
    """Memory now ("VmRSS") or at its highest ("VmHWM")."""
    if args.device.type == "cuda":
        taken = torch.cuda.memory_allocated if field == "VmRSS" else torch.cuda.max_memory_allocated
        return taken(args.device) / 2**20
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(field)).split()[1]) / 2**10


def prepare(args: argparse.Namespace) -> Callable[[slice], Tensor]:
    """The loss of some rows of the batch, by the part that is measured."""
    torch.manual_seed(0)
    shape = (args.batch_size, args.channels, args.side, args.side)
    maps = torch.randn(shape, device=args.device).relu_()
    counts = torch.arange(args.classes, 0, -1)
    if args.part in ("centre loss", "formula"):
        loss = center_loss if args.part == "centre loss" else formula
        centers = torch.randn(args.batch_size, args.centers, args.channels, device=args.device, requires_grad=True)
        scores = torch.randn(args.batch_size, args.centers, device=args.device, requires_grad=True)
        return lambda rows: loss(maps[rows], centers[rows], scores[rows].softmax(1))
    module = RareFeatureGenerator(counts, args.channels, n_centers=args.centers).to(args.device)
    targets = torch.multinomial(counts.double() ** 6, args.batch_size, replacement=True).to(args.device)
    pool = nn.AdaptiveAvgPool2d(1)

    def run(rows: slice) -> Tensor:
        out = module(maps[rows], targets[rows], args.part == "generation")
        return pool(out.maps).sum() + 0.1 * out.losses["cesc"] + 0.01 * out.losses["mv"]

    return run


def measure(args: argparse.Namespace) -> dict[str, float | str]:
    """A small pass to load what is loaded on first use, then the one that counts."""
    run = prepare(args)
    run(slice(8)).backward()
    before, start = megabytes(args, "VmRSS"), time.perf_counter()
    run(slice(None)).backward()
    peak = megabytes(args, "VmHWM")
    return {"part": args.part, "peak_mb": peak - before, "seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--channels", type=int, default=1024)
    parser.add_argument("--side", type=int, default=14, help="height and width of the maps")
    parser.add_argument("--centers", type=int, default=15)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:3])
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # in the process of one row
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args()
    if args.part:
        print(json.dumps(measure(args)))
        return
    maps_mb = 4 * args.batch_size * args.channels * args.side**2 / 2**20
    print(f"{platform.machine()}, {args.device}, torch {torch.__version__}; maps of {maps_mb:.0f} MB")
    print(f"{'part':14}{'beyond the maps, MB':>21}{'seconds':>10}")
    rows = []
    for part in args.parts:
        child = [sys.executable, *sys.argv, "--part", part]
        row = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
        rows.append(row)
        print(f"{part:14}{row['peak_mb']:21,.0f}{row['seconds']:10.2f}", flush=True)
    if args.json:
        settings = {key: getattr(args, key) for key in ("batch_size", "channels", "side", "centers", "classes")}
        settings |= {"device": str(args.device), "threads": torch.get_num_threads(), "torch": torch.__version__}
        args.json.write_text(json.dumps({"settings": settings, "maps_mb": maps_mb, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
