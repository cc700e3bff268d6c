"""How many readers there are unless told."""

from __future__ import annotations

import os

import pytest

from pipelines import DataConfig, EvaluateConfig, PredictConfig
from rebalance.cpus import usual_workers


@pytest.mark.parametrize(
    ("cpus", "ranks", "workers"), [(1, None, 1), (2, None, 2), (64, None, 8), (16, "4", 4), (2, "4", 1)]
)
def test_cpus_are_shared_by_the_ranks_of_a_machine(
    cpus: int, ranks: str | None, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert usual_workers() == workers


def test_machines_that_do_not_tell_which_cpus_may_be_used_tell_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usual_workers() == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usual_workers() == 1


def test_commands_begin_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert DataConfig(data="digits").workers == 5
    assert EvaluateConfig(run="runs/x").workers == 5
    assert PredictConfig(run="runs/x", images=("a.jpg",)).workers == 5
