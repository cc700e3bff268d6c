"""Find out by validation, never by the test split, how synthetic images take part best, and whether they should.

With a validation split every candidate is trained once and judged on it. Without one, and with `tune_folds`, the
training split is cut into stratified folds: for each, generator and classifiers see the other folds only, so that no
held-out image reaches a candidate through the generator; the predictions of all folds are judged together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import RebalanceConfig
from pipelines.config_groups import MixingConfig
from pipelines.console import log
from pipelines.loading import DecodedTable
from pipelines.open_data import OpenData
from rebalance.counts import IntArray, class_counts
from rebalance.data.repeats import first_copies
from rebalance.data.splits import stratified_folds
from rebalance.data.store import ResidentStore, WorkerStore
from rebalance.data.table import Splits
from rebalance.errors import InputError
from rebalance.files import read_json, write_json
from rebalance.ranks import barrier, is_main

WITHOUT = "without synthetic images"

Train = Callable[[Path, RebalanceConfig, OpenData, Path | None], dict[str, Any]]
"""Trains in a folder, with the images of a synthesis folder or without; the run's metrics."""
Synthesize = Callable[[Path, RebalanceConfig, OpenData, Path], None]
"""Synthesizes into a folder, with the features of a run."""


@dataclass(frozen=True)
class Tuning:
    """What was tried, and what is best.

    Args:
        by: How the candidates were judged.
        accuracy: Balanced accuracy of each candidate, and of no synthetic images at all.
        best: The best of them.
        mixing: The settings to train with: the best candidate's, the configured ones where none helped.
    """

    by: str
    accuracy: dict[str, float]
    best: str
    mixing: MixingConfig

    @property
    def helped(self) -> bool:
        """Whether some candidate was better than none."""
        return self.best != WITHOUT


def parse_candidates(config: RebalanceConfig) -> dict[str, MixingConfig]:
    """Candidates by name, from `WEIGHT:SHARE`; the word none alone is no candidate.

    Raises:
        InputError: A candidate that is no pair of numbers in range.
    """
    candidates = {}
    for text in config.tune if config.tune != ("none",) else ():
        weight, separator, share = text.partition(":")
        try:
            values = (float(weight), float(share))
        except ValueError:
            values = (-1.0, -1.0)
        if not separator or not 0 < values[0] <= 10 or not 0 <= values[1] <= 1:
            raise InputError("--tune WEIGHT:SHARE", repr(text), "write for example 0.3:0.9, or none alone")
        name = f"weight {values[0]:g}, real share {values[1]:g}"
        candidates[name] = replace(config.mixing, synthetic_weight=values[0], real_share=values[1])
    return candidates


def tune(
    folder: Path, config: RebalanceConfig, opened: OpenData, images: Path, train: Train, synthesize: Synthesize
) -> Tuning | None:
    """The best of the config's candidates; None where there is nothing to judge by.

    Args:
        folder: Where the trainings go.
        config: Of the pipeline.
        opened: Its data.
        images: The synthesis folder of the whole training split.
        train: How a candidate is trained.
        synthesize: How a fold's images are made.
    """
    candidates = parse_candidates(config)
    if not candidates:
        return None
    if "val" in opened.tables:
        by = "the validation split"
        parts = [_judge(folder, config, opened, images, candidates, train, "val")]
    elif config.tune_folds >= 2:
        by = f"{config.tune_folds} folds of the training split"
        parts = [
            _judge_fold(folder / f"fold-{fold}", config, held, candidates, train, synthesize)
            for fold, held in enumerate(_folds(opened, config))
        ]
    else:
        return None
    accuracy = {name: _balanced_accuracy([part[name] for part in parts]) for name in parts[0]}
    best = max(accuracy, key=lambda name: accuracy[name])
    tuning = Tuning(by, accuracy, best, candidates.get(best, config.mixing))
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "tuning.json", {**asdict(tuning), "helped": tuning.helped})
    barrier()
    log.info("by %s: %s", by, ", ".join(f"{name} {100 * value:.1f}" for name, value in accuracy.items()))
    return tuning


def _judge(
    folder: Path,
    config: RebalanceConfig,
    opened: OpenData,
    images: Path,
    candidates: dict[str, MixingConfig],
    train: Train,
    split: str,
) -> dict[str, dict[str, Any]]:
    """Metrics of every candidate on `split`, one seed."""
    figures = {WITHOUT: train(folder / "without", config, opened, None)[split]}
    for i, (name, mixing) in enumerate(candidates.items()):
        figures[name] = train(folder / f"candidate-{i}", replace(config, mixing=mixing), opened, images)[split]
    return figures


def _judge_fold(
    folder: Path,
    config: RebalanceConfig,
    opened: OpenData,
    candidates: dict[str, MixingConfig],
    train: Train,
    synthesize: Synthesize,
) -> dict[str, dict[str, Any]]:
    train(folder / "without", config, opened, None)
    synthesize(folder / "synthesis", config, opened, folder / "without")
    return _judge(folder, config, opened, folder / "synthesis", candidates, train, "test")


def _folds(opened: OpenData, config: RebalanceConfig) -> Iterator[OpenData]:
    """The training split without each fold, which is what the last epoch is tested on; a class of one image trains."""
    table = opened.train.table
    copies = first_copies(table)
    folds = stratified_folds(table.targets, config.tune_folds, config.seed, copies)
    different = class_counts(table.targets[np.unique(copies)], len(table.classes))
    folds[different[table.targets] < 2] = -1
    together = ", copies together" if different.sum() < len(table) else ""  # earlier versions had other folds of these
    for fold in range(config.tune_folds):
        train = _select(opened, np.flatnonzero(folds != fold))
        held = _select(opened, np.flatnonzero(folds == fold))
        yield replace(
            opened,
            splits=Splits(train.table, test=held.table),
            tables={"train": train, "test": held},
            fingerprint=f"{opened.fingerprint} fold {fold} of {config.tune_folds}{together}",
        )


def _select(opened: OpenData, rows: IntArray) -> DecodedTable:
    store, table = opened.train.store, opened.train.table.select(rows)
    if isinstance(store, ResidentStore):
        return DecodedTable(table, ResidentStore(store.get(rows)))
    assert isinstance(store, WorkerStore)
    return DecodedTable(table, WorkerStore(table, opened.size, workers=store.workers, device=store.device))


def _balanced_accuracy(parts: Sequence[dict[str, Any]]) -> float:
    """Balanced accuracy of the predictions of all parts together."""
    support = np.sum([part["support"] for part in parts], axis=0)
    recalls = [np.nan_to_num(np.array(part["recall"], dtype=np.float64)) for part in parts]
    correct = np.sum([recall * part["support"] for recall, part in zip(recalls, parts, strict=True)], axis=0)
    seen = support > 0
    return float(np.mean(correct[seen] / support[seen]))


def read_tuning(folder: Path) -> dict[str, Any] | None:
    """What `tune` wrote in a run folder, if it did."""
    file = folder / "tuning" / "tuning.json"
    return read_json(file) if file.exists() else None
