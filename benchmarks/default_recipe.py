"""What was asked of the default recipe: ingredients beside balanced softmax, on digits, without the test split.

    OMP_NUM_THREADS=1 python benchmarks/default_recipe.py [--seeds 5] [--updates 600] [--output runs/default_recipe]

Training: the long-tailed digits (305 images). Judged on what the cut leaves of the training pool: 795 images of all
classes but the most frequent, of which nothing is left. Differences are paired by seed, with Student's t interval at
95 %. Finished trainings are not repeated.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import DataConfig, ObjectiveConfig, OptimizationConfig, PlaceConfig, TrainConfig
from pipelines.comparison import estimate
from pipelines.open_data import open_data
from pipelines.session import start_session
from pipelines.training import train_in
from rebalance.data.digits import read_digits
from rebalance.data.splits import make_long_tailed
from rebalance.data.table import ImageTable, Splits

BASE, DEFAULT = "balanced softmax", "mixup, alpha 0.2 (the default)"
PLAIN = {"method": "balanced_softmax"}
MIXED = {"method": "balanced_mixup"}


@dataclass(frozen=True)
class Row:
    """One recipe.

    Args:
        objective: Fields of `ObjectiveConfig`.
        optimization: Fields of `OptimizationConfig`.
        teacher: The row whose run of the same seed teaches it.
    """

    objective: dict[str, Any]
    optimization: dict[str, Any] = field(default_factory=dict)
    teacher: str = ""


ROWS = {
    "cross entropy": Row({"method": "ce"}),
    BASE: Row(PLAIN),
    DEFAULT: Row(MIXED),
    "mixup, alpha 0.4": Row({**MIXED, "option": ("alpha=0.4",)}),
    "mixup, alpha 1": Row({**MIXED, "option": ("alpha=1",)}),
    "CMO in half of the batches": Row({**PLAIN, "mix": "cmo:1:0.5:0.9"}),
    "averaged weights": Row(PLAIN, {"model_ema": 0.999}),
    "mixup and averaged weights": Row(MIXED, {"model_ema": 0.999}),
    "cosine head": Row({**PLAIN, "head": "cosine"}),
    "late SAM": Row(PLAIN, {"sam": 0.1, "sam_from": 0.75}),
    "taught by its like": Row(PLAIN, teacher=BASE),
    "the default, taught by its like": Row(MIXED, teacher=DEFAULT),
}


def training_pool() -> Splits:
    """Long-tailed digits, with what the cut leaves of the training pool as test split."""
    pool = read_digits()
    cut = make_long_tailed(pool, 50.0, "exp", 0).train
    taken = {np.asarray(image).tobytes() for image in cut.images}
    left = np.array([np.asarray(image).tobytes() not in taken for image in pool.train.images])
    images = np.stack([np.asarray(image) for image in pool.train.images])[left]
    return Splits(cut, test=ImageTable(images, pool.train.targets[left], pool.classes))


def place(output: Path, name: str, seed: int) -> Path:
    """Run folder of a row."""
    return output / f"{name.replace(' ', '-')}-seed{seed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--output", type=Path, default=Path("runs/default_recipe"))
    arguments = parser.parse_args()
    data = DataConfig(data="digits", augment="crop")
    opened = open_data(data, start_session("cpu").device, training_pool())
    found: dict[str, list[float]] = {}
    for name, row in ROWS.items():
        found[name] = [
            train_in(
                place(arguments.output, name, seed),
                TrainConfig(
                    data=data,
                    objective=ObjectiveConfig(
                        **row.objective, teacher=place(arguments.output, row.teacher, seed) if row.teacher else None
                    ),
                    optimization=OptimizationConfig(updates=arguments.updates, **row.optimization),
                    seed=seed,
                    place=PlaceConfig(device="cpu", report_to="none"),
                ),
                opened,
            ).metrics["test"]["balanced_accuracy"]
            for seed in range(arguments.seeds)
        ]
        gain = ""
        if name != BASE and BASE in found:
            pairs = zip(found[name], found[BASE], strict=True)
            gain = estimate([one - base for one, base in pairs]).percent(signed=True)
        print(f"{name:32} {estimate(found[name]).percent():>12} {gain:>12}", flush=True)


if __name__ == "__main__":
    main()
