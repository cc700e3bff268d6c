"""`prepare_training`: what follows from the data, the draws and the weights together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines import MixingConfig, ObjectiveConfig, OptimizationConfig, TrainConfig
from pipelines.open_data import OpenData
from pipelines.preparation import prepare_training
from rebalance.methods.composed import ComposedMethod


@pytest.mark.parametrize("schedule", ["none", "deferred:0.5", "deferred:0.8", "progressive"])
@pytest.mark.parametrize("updates", [2, 3, 5, 8, 13, 30])
def test_drawn_samples_have_a_mean_weight_of_one_while_the_sampler_changes(
    noise: OpenData, schedule: str, updates: int
) -> None:
    config = TrainConfig(
        data=noise.config,
        objective=ObjectiveConfig(method="ce", loss_rule="inverse", sampler_rule="inverse", sampler_schedule=schedule),
        optimization=OptimizationConfig(updates=updates, batch_size=16),
    )
    parts = prepare_training(config, noise, torch.device("cpu"))
    assert isinstance(parts.method, ComposedMethod)
    assert parts.batches.updates_per_epoch == 3
    for position, _ in parts.batches.from_update(0):
        drawn = torch.from_numpy(parts.batches.real.expected_shares(position.epoch))
        weight = parts.method.weighting(torch.arange(len(drawn)), torch.tensor(position.update / updates)).double()
        assert float(weight @ drawn) == pytest.approx(1.0, rel=1e-5)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """20 images of the rarest class."""
    for number in range(20):
        file = tmp_path / "made" / "d" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(file)
    return tmp_path / "made"


def test_the_draws_that_weights_are_scaled_by_hold_synthetic_images(noise: OpenData, made: Path) -> None:
    config = TrainConfig(
        data=noise.config,
        objective=ObjectiveConfig(method="ce", loss_rule="inverse", sampler_rule="inverse"),
        optimization=OptimizationConfig(updates=3, batch_size=16),
        synthetic=made,
        mixing=MixingConfig(real_share=0.75, real_only_last=0),
    )
    parts = prepare_training(config, noise, torch.device("cpu"))
    assert isinstance(parts.method, ComposedMethod)
    rows = parts.batches.epoch_rows(0)
    drawn = parts.data.targets[torch.from_numpy(rows)]
    assert int((rows >= 46).sum()) in {11, 12}
    np.testing.assert_allclose(parts.expected, torch.bincount(drawn, minlength=4), atol=1)
    weight = parts.method.weighting(torch.arange(4), torch.tensor(0.0)).double()
    assert float(weight @ torch.from_numpy(parts.expected)) == pytest.approx(46, rel=1e-5)


@pytest.mark.parametrize(("weight", "share"), [(1.0, 0.75), (0.3, 0.9), (2.0, 0.0), (0.5, 1.0)])
def test_a_prior_by_draws_is_that_of_what_the_loss_sees(
    noise: OpenData, made: Path, weight: float, share: float
) -> None:
    config = TrainConfig(
        data=noise.config,
        objective=ObjectiveConfig(method="balanced_softmax"),
        optimization=OptimizationConfig(updates=300, batch_size=16),
        synthetic=made,
        mixing=MixingConfig(real_share=share, synthetic_weight=weight, real_only_last=0),
    )
    parts = prepare_training(config, noise, torch.device("cpu"))
    rows = torch.from_numpy(np.concatenate([parts.batches.epoch_rows(epoch) for epoch in range(100)]))
    seen = torch.bincount(parts.data.targets[rows], parts.data.weight[rows].double(), minlength=4)
    (prior,) = (buffer for name, buffer in parts.method.named_buffers() if name.endswith("log_prior"))
    torch.testing.assert_close(prior.double().exp(), seen / seen.sum(), rtol=0, atol=2e-3)
    assert parts.kappa == pytest.approx(weight * int((rows >= 46).sum()) / 20 / (int((rows < 46).sum()) / 46))


def test_without_synthetic_images_a_prior_by_draws_is_that_of_the_real_ones(noise: OpenData) -> None:
    config = TrainConfig(data=noise.config)
    assert prepare_training(config, noise, torch.device("cpu")).kappa == 0


def test_a_worth_that_is_given_is_taken(noise: OpenData, made: Path) -> None:
    config = TrainConfig(data=noise.config, synthetic=made, mixing=MixingConfig(kappa=0.25))
    assert prepare_training(config, noise, torch.device("cpu")).kappa == 0.25
