"""What weight, share, end and worth (κ) of synthetic images do, beside as many repeated real ones.

    OMP_NUM_THREADS=1 python benchmarks/synthetic_sweep.py DATA [--weights 0.3 1] [--shares 0.9 0.5] [--kappas 0 0.1]
                                    [--ends 0.1] [--method balanced_mixup] [--seeds 5] [--updates 600]
                                    [--output runs/sweep]

Synthesizes once (`rebalance synthesize DATA`, unless --synthesis names a folder of it), then trains a cell for every
weight, smallest share of real images, κ and end (the last part of training, of real images only), once with the kept
images and once with replayed ones. Gains are paired by seed, against replay and against no images at all, with
Student's t interval at 95 %. Finished trainings are not repeated. The figures are of the test split: read them to
learn, not to choose; `rebalance run --tune` chooses by validation.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch

from pipelines import (
    DataConfig,
    MixingConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    SynthesizeConfig,
    TrainConfig,
    synthesize,
    train,
)
from pipelines.comparison import estimate

Set = Literal["kept", "replay"]


def accuracies(arguments: argparse.Namespace, name: str, images: Path | None, mixing: MixingConfig, of: Set) -> Any:
    """Balanced accuracy on the test split, one for each seed."""
    return [
        train(
            TrainConfig(
                data=DataConfig(data=arguments.data, imbalance_factor=arguments.imbalance_factor),
                objective=ObjectiveConfig(method=arguments.method),
                optimization=OptimizationConfig(updates=arguments.updates),
                synthetic=images,
                synthetic_set=of,
                mixing=mixing,
                seed=seed,
                place=PlaceConfig(
                    output=arguments.output,
                    experiment=f"{name}-seed{seed}",
                    device=arguments.device,
                    report_to="none",
                    checkpoint_updates=500,
                ),
            )
        ).metrics["test"]["balanced_accuracy"]
        for seed in range(arguments.seeds)
    ]


def gain(ours: list[float], theirs: list[float]) -> str:
    """Mean of the paired differences, in points."""
    return estimate([one - other for one, other in zip(ours, theirs, strict=True)]).percent(signed=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--imbalance-factor", type=float)
    parser.add_argument("--synthesis", type=Path, help="folder of rebalance synthesize; made unless given")
    parser.add_argument("--method", default="balanced_mixup")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.3, 1.0])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.9, 0.5])
    parser.add_argument("--kappas", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--ends", type=float, nargs="+", default=[0.1])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    data = DataConfig(data=arguments.data, imbalance_factor=arguments.imbalance_factor)
    images = arguments.synthesis or arguments.output / "synthesis"
    if arguments.synthesis is None:
        synthesize(SynthesizeConfig(data=data, out=images, device=arguments.device))
    begin = time.monotonic()
    alone = accuracies(arguments, "alone", None, MixingConfig(), "kept")
    print(f"{arguments.method}, balanced accuracy without synthetic images: {estimate(alone).percent()}", flush=True)
    heads = f"{'weight':>6} {'real':>5} {'κ':>5} {'end':>5} {'kept':>14} {'replay':>14}"
    print(f"{heads} {'kept - replay':>15} {'kept - alone':>15}")
    rows = []
    for weight, share, kappa, end in product(arguments.weights, arguments.shares, arguments.kappas, arguments.ends):
        mixing = MixingConfig(synthetic_weight=weight, real_share=share, kappa=kappa, real_only_last=end)
        name = f"w{weight:g}-s{share:g}-k{kappa:g}-e{end:g}"
        kept = accuracies(arguments, f"{name}-kept", images, mixing, "kept")
        replay = accuracies(arguments, f"{name}-replay", images, mixing, "replay")
        cell = {"weight": weight, "real_share": share, "kappa": kappa, "real_only_last": end}
        rows.append({**cell, "kept": kept, "replay": replay})
        cells = f"{estimate(kept).percent():>14} {estimate(replay).percent():>14}"
        gains = f"{gain(kept, replay):>15} {gain(kept, alone):>15}"
        print(f"{weight:6g} {share:5g} {kappa:5g} {end:5g} {cells} {gains}", flush=True)
    print(f"{time.monotonic() - begin:.0f} s")
    if arguments.json:
        settings = {name: str(value) for name, value in vars(arguments).items()}
        facts = {"settings": settings, "torch": torch.__version__, "alone": alone, "rows": rows}
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
