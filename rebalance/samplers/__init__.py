"""Index samplers for torch: functions of (labels, seed, epoch), the same on every rank, exact under resume."""

from rebalance.samplers.class_batch import ClassBatchSampler
from rebalance.samplers.distributed import DistributedEpochSampler
from rebalance.samplers.epoch import EpochSampler
from rebalance.samplers.labels import find_labels
from rebalance.samplers.mixed_source import MixedSourceSampler

__all__ = ["ClassBatchSampler", "DistributedEpochSampler", "EpochSampler", "MixedSourceSampler", "find_labels"]
