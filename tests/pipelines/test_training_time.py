from __future__ import annotations

import itertools

import pytest
import torch

from pipelines import DataConfig, OptimizationConfig, TrainConfig, training_time
from pipelines.open_data import open_data


def test_the_median_update_stands_for_all_and_the_first_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = itertools.accumulate([500, 100, 2, 2, 9, 2, 1])
    monkeypatch.setattr(training_time.time, "perf_counter", lambda: next(lengths))
    config = TrainConfig(
        data=DataConfig(data="digits"), optimization=OptimizationConfig(updates=90, batch_size=16, amp="no")
    )
    device = torch.device("cpu")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    minutes = training_time.training_minutes(config, open_data(config.data, device), device)
    assert minutes == pytest.approx(90 * 2 / 60)
    assert torch.equal(torch.get_rng_state(), before)
