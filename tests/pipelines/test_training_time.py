from __future__ import annotations

import itertools

import pytest
import torch

from pipelines import DataConfig, ObjectiveConfig, OptimizationConfig, TrainConfig, training_time
from pipelines.open_data import open_data
from pipelines.preparation import Prepared


def test_the_median_update_stands_for_all_and_the_first_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = itertools.accumulate([5, 5, 1, 0.2, 0.3, 0.9, 0.4, 0.1])
    monkeypatch.setattr(training_time.time, "perf_counter", lambda: next(lengths))
    config = TrainConfig(
        data=DataConfig(data="digits"), optimization=OptimizationConfig(updates=90, batch_size=16, amp="no")
    )
    device = torch.device("cpu")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    minutes = training_time.training_minutes(config, open_data(config.data, device), device)
    assert minutes == pytest.approx(90 * 0.3 / 60)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("updates", "seconds"), [(1, 5), (2, 1), (3, 7)])
def test_of_a_short_training_the_last_update_stands_for_all(
    updates: int, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = itertools.accumulate([5, 5, 1, 7])
    monkeypatch.setattr(training_time.time, "perf_counter", lambda: next(lengths))
    optimization = OptimizationConfig(updates=updates, batch_size=16, amp="no")
    config = TrainConfig(data=DataConfig(data="digits"), optimization=optimization)
    device = torch.device("cpu")
    minutes = training_time.training_minutes(config, open_data(config.data, device), device)
    assert minutes == pytest.approx(updates * seconds / 60)


def test_where_updates_are_long_no_more_are_timed_than_tell_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = itertools.accumulate([5, 4, 17, 1000])
    monkeypatch.setattr(training_time.time, "perf_counter", lambda: next(lengths))
    optimization = OptimizationConfig(updates=90, batch_size=16, amp="no")
    config = TrainConfig(data=DataConfig(data="digits"), optimization=optimization)
    device = torch.device("cpu")
    minutes = training_time.training_minutes(config, open_data(config.data, device), device)
    assert minutes == pytest.approx(90 * 17 / 60)


def test_of_large_images_on_a_cpu_a_part_of_the_batch_is_timed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lengths = itertools.accumulate([5, 5, 1, 0.2, 0.2, 0.2, 0.2, 0.2])
    monkeypatch.setattr(training_time.time, "perf_counter", lambda: next(lengths))
    monkeypatch.setattr(training_time, "_PROBE_PIXELS", 16 * 8**2)
    sizes = []
    time_updates = training_time._time_updates

    def watched(config: TrainConfig, prepared: Prepared, device: torch.device) -> list[float]:
        sizes.append({end - begin for begin, end in prepared.batches.bounds})
        return time_updates(config, prepared, device)

    monkeypatch.setattr(training_time, "_time_updates", watched)
    optimization = OptimizationConfig(updates=90, batch_size=64, amp="no")
    objective = ObjectiveConfig(sampler_rule="inverse", sampler_schedule="deferred:0.8")
    config = TrainConfig(data=DataConfig(data="digits"), optimization=optimization, objective=objective)
    device = torch.device("cpu")
    minutes = training_time.training_minutes(config, open_data(config.data, device), device)
    assert "acts in" not in caplog.text, "the training is timed as it is, in smaller batches"
    assert [max(found) for found in sizes] == [16]
    assert minutes == pytest.approx(90 * 0.2 * 4 / 60)
