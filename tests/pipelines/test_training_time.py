from __future__ import annotations

import itertools

import pytest
import torch

from pipelines import DataConfig, OptimizationConfig, TrainConfig, training_time
from pipelines.open_data import open_data


def test_the_median_update_stands_for_all_and_the_first_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = itertools.accumulate([50, 500, 100, 2, 3, 9, 4, 1])
    monkeypatch.setattr(training_time.time, "perf_counter", lambda: next(lengths))
    config = TrainConfig(
        data=DataConfig(data="digits"), optimization=OptimizationConfig(updates=90, batch_size=16, amp="no")
    )
    device = torch.device("cpu")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    minutes = training_time.training_minutes(config, open_data(config.data, device), device)
    assert minutes == pytest.approx(90 * 3 / 60)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("updates", "seconds"), [(1, 500), (2, 100), (3, 7)])
def test_of_a_short_training_the_last_update_stands_for_all(
    updates: int, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = itertools.accumulate([50, 500, 100, 7])
    monkeypatch.setattr(training_time.time, "perf_counter", lambda: next(lengths))
    optimization = OptimizationConfig(updates=updates, batch_size=16, amp="no")
    config = TrainConfig(data=DataConfig(data="digits"), optimization=optimization)
    device = torch.device("cpu")
    minutes = training_time.training_minutes(config, open_data(config.data, device), device)
    assert minutes == pytest.approx(updates * seconds / 60)
