"""CIFAR-10-LT: every method of the toolkit on the same subset, seeds and network, as `rebalance train` trains it.

    python benchmarks/cifar10_lt.py DATA [--rows ce ldam_drw …] [--imbalance-factor 100] [--epochs 200] [--seeds 3]
                                    [--minutes M] [--jobs N] [--compile] [--json FILE]

DATA is a folder train/<class>/*, test/<class>/* of the 32 × 32 images, or `cifar10` with --root. ResNet-32 (0.47 M
parameters), last epoch, published subset, nothing chosen by the test split. Finished trainings are not repeated and
interrupted ones go on, so that the same command, given --minutes, works through the rows piece by piece; the table is
of what is finished. --jobs trains that many side by side, which fills a GPU that one small network leaves idle. The
interval is Student's t over seeds at 95 %.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import product
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from pipelines import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    RetrainConfig,
    TrainConfig,
    retrain,
    train,
)
from pipelines.comparison import estimate
from rebalance.errors import InputError, RunError
from rebalance.metrics import headline

PLAIN = {"base_lr": 0.2, "weight_decay": 2e-4, "sched": "step"}
"""The published recipe: batch 128, learning rate 0.1, steps at 80 % and 90 %."""
STRONG = {"base_lr": 0.2, "weight_decay": 5e-4, "sched": "cosine"}
DRW = {"loss_rule": "effective-number", "loss_schedule": "deferred:0.8", "cb_beta": 0.9999}
METRICS = ("accuracy", "many_shot", "medium_shot", "few_shot")


@dataclass(frozen=True)
class Row:
    """One method.

    Args:
        objective: Fields of `ObjectiveConfig`.
        optimization: Fields of `OptimizationConfig`.
        augment: Augmentation.
        model: Backbone.
        first: Row whose run this is a second stage of.
        teacher: Row whose run, of the same seed, teaches this one.
        published: Accuracy at imbalance factor 100 after 200 epochs, and where it is from.
    """

    objective: dict[str, Any]
    optimization: dict[str, Any] = field(default_factory=lambda: PLAIN)
    augment: str = "crop+flip"
    model: str = "resnet32"
    first: str = ""
    teacher: str = ""
    published: str = ""


def recipe(name: str, published: str = "", *options: str, **optimization: Any) -> Row:
    """A named recipe with plain augmentation."""
    return Row({"method": name, "option": options}, {**PLAIN, **optimization}, published=published)


FOUNDING = {"loss": ("ldam:0.1", "supcon:0.9"), "head": "cosine", "loss_rule": "inverse"}
ROWS: dict[str, Row] = {
    "ce": recipe("ce", "70.4"),
    "ldam_drw": recipe("ldam_drw", "77.0"),
    "balanced_softmax": recipe("balanced_softmax", "77.5"),
    "mixup_drw": recipe("mixup_drw", "82.1"),
    "default": Row({}, {}, augment="auto"),
    "ce_weighted_sampling": Row({"method": "ce", "sampler_rule": "inverse"}),
    "focal": recipe("focal", "70.4"),
    "cb_softmax": recipe("cb_softmax"),
    "cb_sigmoid": recipe("cb_sigmoid"),
    "cb_focal": recipe("cb_focal", "74.6"),
    "ce_drw": Row({"method": "ce", **DRW}, published="74.6"),
    "ldam": recipe("ldam", "73.7"),
    "logit_adjustment": recipe("logit_adjustment", "78.6–80.9"),
    "arcface": recipe("arcface"),
    "am_softmax": recipe("am_softmax"),
    "sphereface": recipe("sphereface"),
    "supcon_ce": Row({"method": "supcon"}, augment="sim,sim"),
    "ldam_supcon": Row(FOUNDING, augment="sim,sim"),
    "ldam_supcon_rsg": Row({**FOUNDING, "rsg": True}, augment="sim,sim"),
    "rsg": recipe("rsg", "80.0"),
    "reslt": recipe("reslt", "80.4", "alpha=0.998", "medium_share=0.8", "tail_share=0.6", weight_decay=5e-4),
    "paco": Row({"method": "paco"}, STRONG, augment="auto"),
    "gpaco": Row({"method": "gpaco"}, STRONG, augment="auto"),
    "bcl": Row({"method": "bcl"}, STRONG, augment="auto", published="84.3"),
    "mixup_drw_strong": Row({"method": "mixup_drw"}, STRONG, augment="strong"),
    "ldam_drw_sam": recipe("ldam_drw", "81.9", sam=0.8),
    "crt": Row({"method": "crt"}, first="ce", published="75.0"),
    "tau_norm": Row({"method": "tau_norm"}, first="ce", published="72.7"),
    **{
        f"autoencoder_{encoder}_{stage}": Row(
            {"method": "autoencoder", "option": (f"encoder={encoder}", f"stage={stage}")}
        )
        for encoder in ("unet", "mobilenet_v2")
        for stage in ("end_to_end", "separate", "classifier")
    },
}


# What each ingredient is worth: on the schedule of the default recipe, and one more at a time.
ROWS |= {
    "ablation_base": Row({"method": "balanced_softmax"}, STRONG),
    "ablation_mixup02": Row({"method": "balanced_mixup"}, STRONG),
    "ablation_mixup1": Row({"method": "balanced_mixup", "option": ("alpha=1",)}, STRONG),
    "ablation_cutmix": Row({"method": "balanced_softmax", "mix": "cutmix:1:0.5:0.9"}, STRONG),
    "ablation_cmo": Row({"method": "balanced_softmax", "mix": "cmo:1:0.5:0.9"}, STRONG),
    "ablation_ema": Row({"method": "balanced_softmax"}, {**STRONG, "model_ema": 0.999}),
    "ablation_cosine_head": Row({"method": "balanced_softmax", "head": "cosine"}, STRONG),
    "ablation_weight_decay": Row({"method": "balanced_softmax"}, {**STRONG, "weight_decay": 2e-4}),
    "ablation_late_sam": Row({"method": "balanced_softmax"}, {**STRONG, "sam": 0.1, "sam_from": 0.75}),
    "ablation_taught": Row({"method": "balanced_softmax"}, STRONG, teacher="ablation_base"),
    "ablation_strong": Row({"method": "balanced_softmax"}, STRONG, augment="strong"),
    "ablation_all": Row(
        {"method": "balanced_mixup", "option": ("alpha=1",)},
        {**STRONG, "model_ema": 0.999, "sam": 0.1, "sam_from": 0.75},
        augment="strong",
    ),
}


def place(arguments: argparse.Namespace, name: str, seed: int) -> PlaceConfig:
    experiment = f"if{arguments.imbalance_factor:g}-{arguments.epochs}-{name}-seed{seed}"
    return PlaceConfig(
        output=arguments.output,
        experiment=experiment,
        device=arguments.device,
        report_to="none",
        checkpoint_updates=500,
    )


def run_row(arguments: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Metrics of one training on the test split."""
    row = ROWS[name]
    length = {"epochs": arguments.epochs, "amp": arguments.amp, "compile": arguments.compile}
    folder = arguments.output / "train"
    if row.first:
        first = folder / str(place(arguments, row.first, seed).experiment)
        stage = replace(RetrainConfig(run=first).optimization, amp=arguments.amp)
        config = RetrainConfig(run=first, optimization=stage, place=place(arguments, name, seed), **row.objective)
        return retrain(config).metrics["test"]
    objective = ObjectiveConfig(**row.objective)
    if row.teacher:
        objective = replace(objective, teacher=folder / str(place(arguments, row.teacher, seed).experiment))
    return train(
        TrainConfig(
            data=DataConfig(
                data=arguments.data,
                root=arguments.root,
                imbalance_factor=arguments.imbalance_factor,
                augment=row.augment,
            ),
            model=ModelConfig(model=row.model),
            objective=objective,
            optimization=OptimizationConfig(**{**row.optimization, **length}),
            seed=seed,
            place=place(arguments, name, seed),
        )
    ).metrics["test"]


def timed_row(arguments: argparse.Namespace, name: str, seed: int, begin: float) -> tuple[dict[str, Any] | None, float]:
    """`run_row` and its seconds; nothing where the time is up."""
    start = time.monotonic()
    if start - begin > 60 * arguments.minutes:
        return None, 0.0
    return run_row(arguments, name, seed), time.monotonic() - start


def end_with_parent() -> None:
    """Have this process save its training and stop when the benchmark is killed."""
    parent = parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=wait, daemon=True).start()


def show(found: dict[str, list[dict[str, Any]]]) -> None:
    print(
        f"\n{'row':32} {'seeds':>5} " + " ".join(f"{name:>14}" for name in METRICS) + "  published (IF 100, 200 epochs)"
    )
    for name, figures in found.items():
        cells = []
        for metric in METRICS:
            values = [headline(one)[metric] for one in figures]
            known = [value for value in values if value is not None]
            cells.append(estimate(known).percent() if known else "n/a")
        print(f"{name:32} {len(figures):5} " + " ".join(f"{cell:>14}" for cell in cells) + f"  {ROWS[name].published}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--imbalance-factor", type=float, default=100)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--amp", default="auto", choices=["auto", "no", "bf16", "fp16"])
    parser.add_argument("--compile", action="store_true", help="compile the methods; not the second stages")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no training after this long")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--output", type=Path, default=Path("runs/cifar10_lt"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    begin = time.monotonic()
    found: dict[str, list[dict[str, Any]]] = {}
    before = dict.fromkeys(ROWS[name].first or ROWS[name].teacher or name for name in arguments.rows)
    todo = list(product(before, range(arguments.seeds)))
    second = [pair for pair in product(arguments.rows, range(arguments.seeds)) if pair not in todo]
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn"), initializer=end_with_parent) as pool:
        for stage in (todo, second):  # second stages and students begin with finished trainings
            waiting = [pool.submit(timed_row, arguments, name, seed, begin) for name, seed in stage]
            for (name, seed), result in zip(stage, waiting, strict=True):
                try:
                    figures, seconds = result.result()
                except (InputError, RunError) as error:
                    print(f"{name} seed {seed}: {error}", flush=True)
                    continue
                if figures is not None and name in arguments.rows:
                    found.setdefault(name, []).append(figures)
                    print(f"{name} seed {seed}: {100 * figures['accuracy']:.2f} in {seconds:.0f} s", flush=True)
    show(found)
    if arguments.json:
        settings = {name: str(value) for name, value in vars(arguments).items()}
        text = json.dumps({"settings": settings, "torch": torch.__version__, "rows": found}, indent=2)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
