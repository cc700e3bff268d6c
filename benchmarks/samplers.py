"""CPU time and memory of an epoch's order: EpochSampler beside torch's WeightedRandomSampler and RandomSampler.

    OMP_NUM_THREADS=1 python benchmarks/samplers.py [--rows N …] [--repeats R] [--json FILE]

1,000 long-tailed classes, class-balanced draws (and plain ones), as many draws as rows. "table" is what is built once
for all epochs: the members of each class, or the weight of each row. "first" is the CPU time to an epoch's first
index, "epoch" to all of them as arrays, "as ints" as Python ints, which is what a DataLoader takes. Memory is the
peak beyond the table. Times are the least of R repeats.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import RandomSampler, WeightedRandomSampler

from rebalance.samplers import EpochSampler

N_CLASSES = 1000
COLUMNS = ("sampler", "rows", "table s", "first s", "epoch s", "as ints s", "memory MB", "note")


def long_tailed(rows: int) -> np.ndarray:
    share = 1 / np.arange(1, N_CLASSES + 1)
    labels = np.searchsorted(np.cumsum(share / share.sum()), np.random.default_rng(0).random(rows))
    return np.minimum(labels, N_CLASSES - 1)


def seconds(act: Callable[[], Any], repeats: int = 1) -> float:
    """CPU time of the fastest of some calls."""
    best = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        act()
        best = min(best, time.process_time() - begin)
    return best


def exhaust(items: Iterable[Any]) -> None:
    for _ in items:
        pass


def ours(labels: np.ndarray, rule: str, repeats: int) -> dict[str, Any]:
    begin = time.process_time()
    sampler = EpochSampler(labels, rule=rule)
    table = time.process_time() - begin
    tracemalloc.start()
    exhaust(sampler.chunks())
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "sampler": f"EpochSampler({rule})",
        "rows": labels.size,
        "table s": table,
        "first s": seconds(lambda: next(iter(sampler)), repeats),
        "epoch s": seconds(lambda: exhaust(sampler.chunks()), repeats),
        "as ints s": seconds(lambda: exhaust(sampler), repeats),
        "memory MB": memory / 1e6,
        "note": "",
    }


def torchs(labels: np.ndarray, weighted: bool, repeats: int) -> dict[str, Any]:
    """Of torch's samplers the first index comes when all are drawn; memory is what the process grows by at its peak."""
    row: dict[str, Any] = {"sampler": "WeightedRandomSampler" if weighted else "RandomSampler", "rows": labels.size}
    begin = time.process_time()
    if weighted:
        weight = torch.from_numpy(1.0 / np.bincount(labels, minlength=N_CLASSES))[torch.from_numpy(labels)]
        sampler: Any = WeightedRandomSampler(weight, labels.size)
    else:
        sampler = RandomSampler(range(labels.size))
    row["table s"] = time.process_time() - begin
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        row["first s"] = seconds(lambda: next(iter(sampler)), repeats)
    except RuntimeError as error:
        return row | {"note": f"fails: {str(error).splitlines()[0][:60]}"}
    row["as ints s"] = seconds(lambda: exhaust(sampler), repeats)
    row["memory MB"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6
    return row | {"note": ""}


def cell(value: Any) -> str:
    return (
        "–"
        if value is None
        else f"{value:.3g}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else value
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 2**24, 20_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = []
    print(" ".join(f"{name:>26}" if name == "sampler" else f"{name:>11}" for name in COLUMNS))
    for rows in arguments.rows:
        labels = long_tailed(rows)
        for row in (
            ours(labels, "inverse", arguments.repeats),
            ours(labels, "none", arguments.repeats),
            torchs(labels, True, arguments.repeats),
            torchs(labels, False, arguments.repeats),
        ):
            found.append(row)
            cells = [cell(row.get(name)) for name in COLUMNS]
            print(f"{cells[0]:>26} " + " ".join(f"{text:>11}" for text in cells[1:]), flush=True)
    if arguments.json:
        machine = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
        arguments.json.write_text(json.dumps({"machine": machine, "rows": found}, indent=2))


if __name__ == "__main__":
    main()
