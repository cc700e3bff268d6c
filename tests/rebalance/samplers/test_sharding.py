from __future__ import annotations

from typing import Any

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from rebalance.samplers import DistributedEpochSampler, EpochSampler
from rebalance.samplers.sharding import find_sharder

LABELS = [row % 4 for row in range(64)]


class _DatasetSamplerWrapper:
    """Stands in for Lightning's, of which the name and the place in the stack matter."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def reset(self) -> list[int]:
        return list(self.sampler)


def test_a_part_that_accelerate_shards_again_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    batches = DistributedEpochSampler(LABELS, num_replicas=2, rank=0, batch_size=4)
    for _ in range(2):
        list(BatchSamplerShard(batches, 2, 0))
    assert caplog.text.count("accelerate's prepare shards a DistributedEpochSampler, which is one rank's part") == 1
    rows = DistributedEpochSampler(LABELS, num_replicas=2, rank=0)
    list(BatchSamplerShard(BatchSampler(rows, 4, False), 2, 0))
    assert caplog.text.count("give the DataLoader the sampler of one process") == 2


def test_a_part_that_a_class_of_lightnings_name_shards_again_is_told(caplog: pytest.LogCaptureFixture) -> None:
    _DatasetSamplerWrapper(DistributedEpochSampler(LABELS, num_replicas=2, rank=0)).reset()
    assert "pass Trainer(use_distributed_sampler=False)" in caplog.text


def test_a_part_that_lightning_shards_again_is_told(caplog: pytest.LogCaptureFixture) -> None:
    lightning = pytest.importorskip("lightning.fabric.utilities.distributed")
    part = DistributedEpochSampler(LABELS, num_replicas=2, rank=0)
    assert len(list(lightning.DistributedSamplerWrapper(part, num_replicas=2, rank=0))) == 16
    assert "pass Trainer(use_distributed_sampler=False)" in caplog.text


def test_whoever_shards_once_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    list(DistributedEpochSampler(LABELS, num_replicas=2, rank=0))
    list(BatchSamplerShard(BatchSampler(EpochSampler(LABELS), 4, False), 2, 0))
    list(BatchSamplerShard(DistributedEpochSampler(LABELS, num_replicas=1, rank=0, batch_size=4), 2, 0))
    assert caplog.text == ""
    assert find_sharder() is None
