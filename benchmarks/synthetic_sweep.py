"""What weight, share, end and worth (κ) of synthetic images do, beside as many repeated real ones.

    OMP_NUM_THREADS=1 python benchmarks/synthetic_sweep.py DATA [--weights 0.3 1] [--shares 0.9 0.5]
                                    [--kappas 0 0.1 drawn] [--ends 0.1] [--left-out] [--label-exponent 1]
                                    [--generator-objective cbdm] [--generator-augment 0.12]
                                    [--head-to-tail 0.5 0.8] [--generator-updates 1000]
                                    [--method balanced_mixup] [--seeds 5] [--updates 600] [--output runs/sweep]

Synthesizes once (`rebalance synthesize DATA`, unless --synthesis names a folder of it), then trains a cell for every
weight, smallest share of real images, κ and end (the last part of training, of real images only): with the kept images,
with as many replayed ones, and with --left-out with real images that the cut to a long tail left out, as many of each
class as were kept and then all of them: no generator can make better ones, so they tell whether the images or the way
they take part are to blame. Gains are paired by seed, against replay and against no images at all, with Student's t
interval at 95 %. Finished trainings are not repeated. The figures are of the test split: read them to learn, not to
choose; `rebalance run --tune` chooses by validation.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from generators.image_files import folder_name
from generators.manifest import KEPT, read_manifest
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
from pipelines.generator_config import GeneratorConfig
from pipelines.loading import load_splits
from rebalance.data.table import content_hash

_GENERATOR = ("label_exponent", "generator_objective", "generator_augment", "generator_updates", "head_to_tail")
Set = Literal["kept", "replay"]
Kappa = float | Literal["drawn"]


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


def left_out(data: DataConfig, most: Counter[str] | None, folder: Path) -> Path:
    """A folder of the training images that the cut to a long tail left out, of each class at most so many."""
    cut, whole = (load_splits(config).train for config in (data, replace(data, imbalance_factor=1)))
    taken = {content_hash(image) for image in cut.images}
    shutil.rmtree(folder, ignore_errors=True)
    written: Counter[str] = Counter()
    for row, (image, label) in enumerate(zip(whole.images, whole.targets, strict=True)):
        name = whole.classes[label]
        place = folder / folder_name(name)
        place.mkdir(parents=True, exist_ok=True)
        if content_hash(image) in taken or (most is not None and written[name] >= most[name]):
            continue
        written[name] += 1
        if isinstance(image, str):
            shutil.copyfile(image, place / f"{row}{Path(image).suffix}")
        else:
            Image.fromarray(image).save(place / f"{row}.png")
    return folder


def kappa(text: str) -> Kappa:
    """A number, or "drawn"."""
    return "drawn" if text == "drawn" else float(text)


def gain(ours: list[float], theirs: list[float]) -> str:
    """Mean of the paired differences, in points."""
    return estimate([one - other for one, other in zip(ours, theirs, strict=True)]).percent(signed=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--imbalance-factor", type=float)
    parser.add_argument("--synthesis", type=Path, help="folder of rebalance synthesize; made unless given")
    parser.add_argument("--left-out", action="store_true", help="also real images that the cut to a long tail left out")
    parser.add_argument("--label-exponent", type=float)
    parser.add_argument("--generator-objective", choices=["plain", "cbdm"])
    parser.add_argument("--generator-augment", type=float)
    parser.add_argument("--generator-updates", type=int)
    parser.add_argument("--head-to-tail", type=float, nargs="+")
    parser.add_argument("--method", default="balanced_mixup")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.3, 1.0])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.9, 0.5])
    parser.add_argument("--kappas", type=kappa, nargs="+", default=["drawn", 0.0])
    parser.add_argument("--ends", type=float, nargs="+", default=[0.1])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    settings = {name: getattr(arguments, name) for name in _GENERATOR}
    chosen = {n: tuple(v) if isinstance(v, list) else v for n, v in settings.items() if v is not None}
    if arguments.synthesis is not None and chosen:
        flags = ", ".join("--" + name.replace("_", "-") for name in chosen)
        parser.error(f"{flags}: of a synthesis that is made here; leave out one of it and --synthesis")
    data = DataConfig(data=arguments.data, imbalance_factor=arguments.imbalance_factor)
    images = arguments.synthesis or arguments.output / "synthesis"
    if arguments.synthesis is None:
        generator = GeneratorConfig(**chosen)
        synthesize(SynthesizeConfig(data=data, generator=generator, out=images, device=arguments.device))
    sets: dict[str, tuple[Path, Set]] = {"replay": (images, "replay"), "kept": (images, "kept")}
    if arguments.left_out:
        kept = Counter(row["class"] for row in read_manifest(images) if row["verdict"] == KEPT)
        sets["left out, as many"] = left_out(data, kept, arguments.output / "left-out-as-many"), "kept"
        sets["left out, all"] = left_out(data, None, arguments.output / "left-out"), "kept"
    begin = time.monotonic()
    alone = accuracies(arguments, "alone", None, MixingConfig(), "kept")
    print(f"{arguments.method}, balanced accuracy without synthetic images: {estimate(alone).percent()}", flush=True)
    heads = " ".join(f"{head:>14}" for head in ("accuracy", "- replay", "- alone"))
    print(f"{'weight':>6} {'real':>5} {'κ':>5} {'end':>5} {'images':>17} {heads}")
    rows = []
    for weight, share, worth, end in product(arguments.weights, arguments.shares, arguments.kappas, arguments.ends):
        mixing = MixingConfig(synthetic_weight=weight, real_share=share, kappa=worth, real_only_last=end)
        cell = {"weight": weight, "real_share": share, "kappa": worth, "real_only_last": end}
        found: dict[str, list[float]] = {}
        for name, (folder, which) in sets.items():
            kind = name.replace(",", "").replace(" ", "-")
            run = f"w{weight:g}-s{share:g}-k{worth}-e{end:g}-{kind}"
            found[name] = accuracies(arguments, run, folder, mixing, which)
            gains = [estimate(found[name]).percent(), gain(found[name], found["replay"]), gain(found[name], alone)]
            gains[1] = "" if name == "replay" else gains[1]
            cells = " ".join(f"{text:>14}" for text in gains)
            print(f"{weight:6g} {share:5g} {worth!s:>5} {end:5g} {name:>17} {cells}", flush=True)
        rows.append({**cell, "accuracy": found})
    print(f"{time.monotonic() - begin:.0f} s")
    if arguments.json:
        settings = {name: str(value) for name, value in vars(arguments).items()}
        facts = {"settings": settings, "torch": torch.__version__, "alone": alone, "rows": rows}
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
