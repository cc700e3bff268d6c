"""Which weights of a training become its model."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipelines import DataConfig, ObjectiveConfig, OptimizationConfig, PlaceConfig, TrainConfig, train, training_run
from pipelines.history import History
from rebalance.errors import InputError


def config(epochs: int = 4, val_fraction: float = 0.2) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(data="digits", imbalance_factor=4, val_fraction=val_fraction),
        objective=ObjectiveConfig(method="ce"),
        optimization=OptimizationConfig(epochs=epochs, batch_size=32),
        place=PlaceConfig(device="cpu", report_to="none", checkpoint_updates=1),
    )


def test_validation_split_selects_the_epoch(here: Path) -> None:
    result = train(config())
    with (result.folder / "history.csv").open() as file:
        accuracy = [float(row["val_balanced_accuracy"]) for row in csv.DictReader(file)]
    best = result.metrics["selected"]
    assert best["epoch"] == int(np.argmax(accuracy))
    assert result.metrics["val"]["balanced_accuracy"] == pytest.approx(max(accuracy), abs=1e-5)


def test_without_a_validation_split_the_last_epoch_counts(here: Path) -> None:
    assert train(config(epochs=1, val_fraction=0.0)).metrics["selected"] == {"by": "last epoch"}


@pytest.mark.parametrize("begun_before", [False, True])
def test_weights_and_their_record_agree_when_a_kill_comes_between_them(
    here: Path, monkeypatch: pytest.MonkeyPatch, begun_before: bool
) -> None:
    """A repeated epoch may come out otherwise, as on a GPU, whose kernels may round differently each time."""

    def judged(*accuracies: float) -> None:
        figures: Iterator[dict[str, Any]] = ({"balanced_accuracy": value} for value in accuracies)
        monkeypatch.setattr(training_run, "headline", lambda _: next(figures))

    end_epoch = History.end_epoch

    def kill_at_the_second(self: History, step: Any, *rest: Any) -> Any:
        if step.epoch == 1:
            raise KeyboardInterrupt
        return end_epoch(self, step, *rest)

    judged(0.3, 0.9)
    with monkeypatch.context() as patch:
        patch.setattr(History, "end_epoch", kill_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            train(config())
    checkpoints = next(Path("runs/train").iterdir()) / "checkpoints"
    if begun_before:  # when there was one name for them
        best = sorted(checkpoints.glob("best_*.safetensors"))
        best[0].rename(checkpoints / "best.safetensors")
        shutil.copyfile(checkpoints / "best.safetensors", kept_aside := here / "best.safetensors")
        best = [kept_aside, best[1]]
    else:
        best = sorted(checkpoints.glob("best_*.safetensors"))
    first, second = (load_file(file) for file in best)
    in_use = checkpoints / "best.safetensors" if begun_before else best[0]
    in_use.rename(here / "away")
    with pytest.raises(InputError, match=r"best_\d+\.safetensors; got no such file; start the run again"):
        train(config())
    (here / "away").rename(in_use)
    judged(0.2, 0.2, 0.2)
    result = train(config())
    assert result.metrics["selected"]["balanced_accuracy"] == 0.3
    kept = load_file(result.folder / "model" / "weights.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in first.items())
    assert not all(torch.equal(kept[name], tensor) for name, tensor in second.items())
    assert len(list(checkpoints.glob("best_*"))) == 1
