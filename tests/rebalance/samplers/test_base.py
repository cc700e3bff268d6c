"""What every sampler tells of a loop that names no epoch."""

from __future__ import annotations

from typing import Any

import pytest

from rebalance.errors import InputError
from rebalance.samplers import ClassBatchSampler, DistributedEpochSampler, EpochSampler


@pytest.mark.parametrize("kind", ["epoch", "batches", "distributed"])
def test_a_loop_that_names_no_epoch_is_told_once_from_its_third_on(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    sampler: Any = {
        "epoch": EpochSampler,
        "batches": lambda labels: ClassBatchSampler(labels, classes_per_batch=2, samples_per_class=1),
        "distributed": DistributedEpochSampler,
    }[kind]([0, 0, 1])
    orders = [list(sampler) for _ in range(2)]
    assert orders[0] == orders[1]
    assert caplog.text == ""
    for _ in range(3):
        list(sampler)
    assert caplog.text.count("without set_epoch, so each time it draws the same rows; call set_epoch(epoch)") == 1


def test_a_loop_that_resumes_but_names_no_epoch_is_told_that_nothing_is_left(caplog: pytest.LogCaptureFixture) -> None:
    sampler = EpochSampler([0, 0, 1])
    for _ in range(3):
        for _ in sampler:
            sampler.consumed(1)
    assert "so each time nothing is left of it" in caplog.text


def test_a_loop_that_names_its_epochs_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    sampler = EpochSampler([0, 0, 1])
    for epoch in range(5):
        sampler.set_epoch(epoch)
        list(sampler)
    assert caplog.text == ""


def test_a_batch_sampler_is_its_own_sampler_and_no_other() -> None:
    sampler = ClassBatchSampler([0, 0, 1], classes_per_batch=2, samples_per_class=1)
    sampler.sampler = sampler  # type: ignore[assignment]  # as accelerate's set_sampler does
    assert sampler.sampler is sampler
    with pytest.raises(
        InputError, match=r"ClassBatchSampler as its own sampler.*; got EpochSampler; make a new loader"
    ):
        sampler.sampler = EpochSampler([0, 1])
