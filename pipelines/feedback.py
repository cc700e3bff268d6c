"""Give out the budget in rounds: train, see which classes validation still fails on, make more images of those.

The first round has its share of the budget as the rule says. Each later one gives its share to the classes that the
rule has images for, in proportion to how many of their validation images a classifier gets wrong that was trained on
the images so far. The test split plays no part.

A round goes on from the one before it, and the first from the synthesis of the whole budget: the same generator, and
the same images in the same order, of some classes more and of others fewer. So only what is new is made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.config import RebalanceConfig, SynthesizeConfig
from pipelines.config_groups import BudgetConfig
from pipelines.console import log
from pipelines.open_data import OpenData
from pipelines.runs import RunFolder
from pipelines.synthesis import synthesize
from pipelines.tuning import Train
from rebalance.counts import FloatArray, IntArray
from rebalance.data.table import Splits
from rebalance.errors import InputError
from rebalance.files import read_json, write_json, write_text
from rebalance.ranks import barrier, is_main

Settings = Callable[[RebalanceConfig, Path, Path | None], SynthesizeConfig]
"""How to synthesize into a folder, with the features of a run."""


def check_rounds(config: RebalanceConfig, splits: Splits | None = None) -> None:
    """Refuse rounds that cannot be.

    Args:
        config: Of the pipeline.
        splits: Its data, once they are known.

    Raises:
        InputError: No rounds at all, an arm without its rounds or rounds without what they are compared with, or no
            validation split.
    """
    if config.rounds < 1:
        raise InputError("--rounds of at least 1", str(config.rounds), "1 makes all images at once")
    if config.rounds == 1 and "feedback" in config.arms:
        raise InputError("--rounds of 2 or more for the arm feedback", "--rounds 1", "add --rounds 3, say")
    if config.rounds > 1 and "synthetic" not in config.arms:
        raise InputError(
            "the arm synthetic, which rounds are compared with", f"--arms {' '.join(config.arms)}", "add it to --arms"
        )
    if config.rounds > 1 and splits is not None and splits.val is None:
        raise InputError(
            "a validation split for --rounds, to see which classes fail",
            f"none in {config.data.data}",
            "add --val-fraction 0.2, or leave --rounds out",
        )


def with_feedback_arm(config: RebalanceConfig) -> RebalanceConfig:
    """`config` with the arm that several rounds add."""
    if config.rounds == 1 or "feedback" in config.arms:
        return config
    return replace(config, arms=(*config.arms, "feedback"))


def make_in_rounds(
    folder: Path,
    config: RebalanceConfig,
    opened: OpenData,
    whole: Path,
    features: Path | None,
    train: Train,
    settings: Settings,
) -> Path:
    """Make the images of the arm feedback, or go on where that was interrupted; the last round's synthesis folder.

    Args:
        folder: Where the rounds go.
        config: Of the pipeline.
        opened: Its data.
        whole: The synthesis of the whole budget at once.
        features: Run whose features the gates use; None for those that `whole` trained.
        train: Trains on a round's images.
        settings: Of a synthesis.

    Raises:
        InputError: Fewer images than rounds.
    """
    classes, n_real = opened.classes, opened.train.table.counts
    entries = read_json(whole / "metrics.json")["classes"]
    budget = np.array([entry["wanted"] for entry in entries], dtype=np.int64)
    if budget.sum() < config.rounds:
        raise InputError(
            f"a budget of at least one image for each of {config.rounds} rounds",
            f"{budget.sum()} images",
            "lower --rounds, or raise the budget",
        )
    room = _room(config.budget, n_real)
    shares = np.diff(int(budget.sum()) * np.arange(config.rounds + 1) // config.rounds)
    given = share_out(int(shares[0]), budget, budget)
    before, rounds = whole, [_described(given)]
    for number in range(1, config.rounds + 1):
        place = folder / f"round-{number}"
        counts = tuple(f"{name}={n}" for name, n in zip(classes, given.tolist(), strict=True) if n)
        explicit = BudgetConfig(budget="explicit", count=counts, reserve=config.budget.reserve)
        wanted = settings(
            replace(config, budget=explicit), place / "synthesis", whole / "features" if features is None else features
        )
        log.info("round %d of %d: %d images so far", number, config.rounds, given.sum())
        _go_on_from(before, place / "synthesis", wanted)
        synthesize(wanted, opened)
        before = place / "synthesis"
        if number < config.rounds:
            figures = train(place / "training", config, opened, before)["val"]
            weights = np.where(budget > 0, failure(figures["recall"], figures["support"]), 0.0)
            given = given + share_out(int(shares[number]), weights, room - given)
            rounds[-1]["recall"] = figures["recall"]
            rounds.append(_described(given))
    if is_main():
        write_json(folder / "rounds.json", {"classes": list(classes), "real": n_real.tolist(), "rounds": rounds})
    barrier()
    return before


def read_rounds(folder: Path) -> dict[str, Any] | None:
    """What `make_in_rounds` wrote in a run folder, if it did."""
    file = folder / "feedback" / "rounds.json"
    return read_json(file) if file.exists() else None


def failure(recall: Sequence[float | None], support: Sequence[int]) -> FloatArray:
    """Share of each class's validation images that are got wrong, (C,).

    Drawn a little towards one half, (wrong + 1/2) / (n + 1), since a class of three images that are all right is not
    known to be without fault. A class without validation images has the mean of the others.

    Examples:
        >>> failure([1.0, 0.5, None], [9, 3, 0]).round(3).tolist()
        [0.05, 0.5, 0.275]
    """
    n = np.asarray(support, dtype=np.float64)
    wrong = (1 - np.array([np.nan if r is None else r for r in recall], dtype=np.float64)) * n
    shares = (wrong + 0.5) / (n + 1)
    return np.where(n > 0, shares, np.nanmean(np.where(n > 0, shares, np.nan)))


def share_out(total: int, weights: npt.ArrayLike, room: IntArray) -> IntArray:
    """`total` images in proportion to `weights` (C,), of no class more than its room; fewer where all are full.

    Examples:
        >>> share_out(10, [1.0, 3.0, 0.0, 1.0], np.array([9, 4, 9, 9])).tolist()
        [3, 4, 0, 3]
    """
    w = np.asarray(weights, dtype=np.float64)
    given = np.zeros(len(w), dtype=np.int64)
    while (left := total - int(given.sum())) > 0:
        open_ = np.where(given < room, w, 0.0)
        if open_.sum() <= 0:
            break
        exact = left * open_ / open_.sum()
        add = np.minimum(np.floor(exact).astype(np.int64), room - given)
        if (add == np.floor(exact)).all():  # no class is full: what is left over goes to the largest fractions
            free = (open_ > 0) & (given + add < room)
            order = np.argsort(np.where(free, add - exact, 2.0), kind="stable")
            add[order[: min(left - int(add.sum()), int(free.sum()))]] += 1
        given += add
    return given


def _room(budget: BudgetConfig, n_real: IntArray) -> IntArray:
    """The most images that each class may have, (C,)."""
    most = np.full(len(n_real), np.iinfo(np.int32).max, dtype=np.int64)
    if budget.max_per_class is not None:
        most = np.minimum(most, budget.max_per_class)
    if budget.max_ratio is not None:
        most = np.minimum(most, np.floor(budget.max_ratio * n_real).astype(np.int64))
    return most


def _described(given: IntArray) -> dict[str, Any]:
    return {"images": given.tolist(), "recall": None}


def _go_on_from(source: Path, target: Path, config: SynthesizeConfig) -> None:
    """Begin a synthesis folder with the generator and the candidates of another; after a kill this is completed."""
    with RunFolder(target, "synthesize", config):
        if is_main() and not (target / "journals").exists():
            for file in sorted((source / "candidates").rglob("*")):
                if file.is_file() and not file.name.endswith(".tmp"):
                    _link(file, target / file.relative_to(source))
            if (source / "generator").is_dir() and not (target / "generator").exists():
                building = target / ".generator.tmp"
                shutil.rmtree(building, ignore_errors=True)
                shutil.copytree(source / "generator", building)
                building.rename(target / "generator")
            journals = [file.read_text(encoding="utf-8") for file in sorted((source / "journals").glob("*.jsonl"))]
            lines = [text if text.endswith("\n") else f"{text}\n" for text in journals if text]
            building = target / ".journals.tmp"
            building.mkdir(exist_ok=True)
            write_text(building / "earlier.jsonl", "".join(lines))
            building.rename(target / "journals")
        barrier()


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        building = target.with_name(f".{target.name}.tmp")
        shutil.copyfile(source, building)
        building.rename(target)
