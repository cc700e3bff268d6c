"""CPU time and memory of `fit_resample` on 480,000 rows of 8,142 classes, beside imbalanced-learn's samplers.

    OMP_NUM_THREADS=1 python benchmarks/resampling.py [--rows N] [--classes C] [--repeats R] [--json FILE]

X is (N, 1); labels are drawn alike for every class, as whole numbers and as strings. "faster" is imbalanced-learn's
`RandomOverSampler` on the same labels over ours. Times are the least of R repeats (one of imbalanced-learn's). Memory
is the peak beyond the input; "output MB" is X, y and the indices that are handed out.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import tracemalloc
from pathlib import Path
from typing import Any

import imblearn
import numpy as np
import sklearn
from imblearn.over_sampling import RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler

from rebalance.resampling import EffectiveNumberSampler, FillSampler, InverseFrequencySampler, SquareRootSampler

COLUMNS = ("sampler", "labels", "rows out", "seconds", "faster", "memory MB", "output MB")


def measure(sampler: Any, X: np.ndarray, y: np.ndarray, repeats: int) -> dict[str, Any]:
    best = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        resampled, labels = sampler.fit_resample(X, y)
        best = min(best, time.process_time() - begin)
    output = resampled.nbytes + labels.nbytes + sampler.sample_indices_.nbytes
    row = {
        "sampler": type(sampler).__name__,
        "labels": "int" if y.dtype.kind == "i" else "str",
        "rows out": len(labels),
    }
    return row | {"seconds": best, "output MB": output / 1e6}


def peak_memory(sampler: Any, X: np.ndarray, y: np.ndarray) -> float:
    tracemalloc.start()
    sampler.fit_resample(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=480_000)
    parser.add_argument("--classes", type=int, default=8142)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    X = np.arange(arguments.rows).reshape(-1, 1)
    y = np.random.default_rng(0).integers(0, arguments.classes, arguments.rows)
    names = np.array([f"class {c:05d}" for c in range(arguments.classes)])[y]
    found: list[dict[str, Any]] = []
    print(f"{COLUMNS[0]:>24} " + " ".join(f"{name:>10}" for name in COLUMNS[1:]))
    baseline: dict[str, float] = {}
    samplers = [RandomOverSampler, RandomUnderSampler]
    samplers += [FillSampler, InverseFrequencySampler, SquareRootSampler, EffectiveNumberSampler]
    for kind in samplers:
        for labels in (y, names):
            peer = kind in (RandomOverSampler, RandomUnderSampler)
            if kind is RandomUnderSampler and labels is names:
                continue
            row = measure(kind(random_state=0), X, labels, 1 if peer else arguments.repeats)
            if kind is RandomOverSampler:
                baseline[row["labels"]] = row["seconds"]
            row["faster"] = baseline[row["labels"]] / row["seconds"]
            row["memory MB"] = None if peer else peak_memory(kind(random_state=0), X, labels)
            found.append(row)
            cells = [row[name] for name in COLUMNS[1:]]
            texts = ["–" if c is None else f"{c:.3g}" if isinstance(c, float) else f"{c}" for c in cells]
            print(f"{row['sampler']:>24} " + " ".join(f"{text:>10}" for text in texts), flush=True)
    if arguments.json:
        machine = {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
            "imbalanced-learn": imblearn.__version__,
        }
        arguments.json.write_text(json.dumps({"machine": machine, "rows": found}, indent=2))


if __name__ == "__main__":
    main()
