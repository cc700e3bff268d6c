"""Which rows train in which update, and the learning rate over a training of any length."""

from __future__ import annotations

import csv
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipelines import (
    DataConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    TrainConfig,
    preparation,
    train,
)
from pipelines.batches import TrainingBatches
from pipelines.optimization import base_learning_rate, set_learning_rate
from rebalance.errors import InputError
from rebalance.samplers import EpochSampler, MixedSourceSampler

N = 40


def batches(epochs: int = 1, updates: int | None = None, real_only_last: float | None = None) -> TrainingBatches:
    real = EpochSampler(np.arange(N) % 4)
    mixed = None
    if real_only_last is not None:
        mixed = MixedSourceSampler(real, EpochSampler(np.arange(8) % 4), batch_size=10, real_share=0.5)
    return TrainingBatches(
        real, mixed, batch_size=10, epochs=epochs, updates=updates, real_only_last=real_only_last or 0.0
    )


def rates(trained: TrainingBatches, **settings: object) -> list[float]:
    """The learning rate of each update, as a multiple of the base rate."""
    config = OptimizationConfig(**settings)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    return [
        set_learning_rate(optimizer, config, position.update / trained.updates_per_epoch, trained.length)
        / base_learning_rate(config)
        for position, _ in trained.from_update(0)
    ]


def test_the_end_of_synthetic_images_is_counted_in_updates() -> None:
    trained = batches(
        epochs=3, real_only_last=0.25
    )  # 12 updates, the last 3 real only: one of them in the second epoch
    synthetic = [bool((rows >= N).any()) for _, rows in trained.from_update(0)]
    assert synthetic == [True] * 9 + [False] * 3
    assert all(len(rows) == 10 for _, rows in trained.from_update(0))
    later = [rows.tolist() for _, rows in trained.from_update(8)]
    assert later == [rows.tolist() for _, rows in trained.from_update(0)][8:]


@pytest.mark.parametrize("updates", [3, 5, 9, 22, 100])
def test_the_rate_warms_up_and_falls_to_nothing_however_short_the_training(updates: int) -> None:
    factors = rates(batches(updates=updates))
    peak = int(np.argmax(factors))
    assert max(factors) == pytest.approx(1.0, abs=0.05)
    assert peak <= max(0.25 * updates, 1)
    assert factors[-1] < (0.8 if updates == 3 else 0.2)


def test_a_training_that_ends_inside_an_epoch_has_the_rate_of_its_own_length(tmp_path: Path) -> None:
    optimization = OptimizationConfig(updates=7, warmup_epochs=0)
    config = TrainConfig(
        data=DataConfig(data="digits"),
        objective=ObjectiveConfig(method="ce"),
        optimization=optimization,
        place=PlaceConfig(device="cpu", report_to="none", output=tmp_path),
    )
    with (train(config).folder / "history.csv").open() as file:
        last = float(list(csv.DictReader(file))[-1]["lr"])
    assert last == pytest.approx(base_learning_rate(optimization) * 0.5 * (1 + math.cos(math.pi * 6 / 7)), rel=1e-4)


def test_steps_fall_at_their_share_of_the_updates() -> None:
    factors = rates(batches(updates=25), sched="step", warmup_epochs=0)
    assert factors == pytest.approx([1.0] * 20 + [0.01] * 3 + [0.0001] * 2)


def test_the_official_schedule_is_that_of_whole_epochs() -> None:
    factors = rates(batches(epochs=200), sched="step")[::4]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 156 + [0.01] * 20 + [0.0001] * 20)


@pytest.mark.parametrize(("updates", "first"), [(410, 3), (401, 3), (360, 3), (300, 2), (201, 2)])
def test_a_deferred_sampler_begins_with_the_nearest_epoch_of_any_length(updates: int, first: int) -> None:
    sampler = EpochSampler(np.arange(N) % 4, rule="inverse", schedule="deferred:0.8", epochs=updates / 100)
    assert next(epoch for epoch in range(-(-updates // 100)) if sampler.factor(epoch)) == first


def test_a_batch_that_leaves_a_process_one_image_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preparation, "world_size", lambda: 2)
    config = TrainConfig(
        data=DataConfig(data="digits"),
        objective=ObjectiveConfig(method="ce"),
        optimization=OptimizationConfig(updates=1, batch_size=3),
        place=PlaceConfig(device="cpu", report_to="none", output=tmp_path),
    )
    with pytest.raises(InputError, match=r"at least two images for each of 2 processes.*; got 2, with --batch-size 3"):
        train(config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("updates", "warned"), [(12, False), (7, False), (6, True)])
def test_a_deferred_sampler_begins_with_an_epoch_or_says_that_it_does_not(
    updates: int, warned: bool, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    config = TrainConfig(
        data=DataConfig(data="digits"),
        objective=ObjectiveConfig(method="ce", sampler_rule="inverse", sampler_schedule="deferred:0.8"),
        optimization=OptimizationConfig(updates=updates),
        place=PlaceConfig(device="cpu", report_to="none", output=tmp_path),
    )
    with caplog.at_level(logging.WARNING):
        train(config)
    said = "--sampler-schedule deferred:0.8 acts in 0.0 % of training only: it begins with an epoch, and there are 2"
    assert (said in caplog.text) == warned
