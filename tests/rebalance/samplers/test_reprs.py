"""What a sampler says of itself in a log or a notebook."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils.data import RandomSampler

from rebalance.samplers import ClassBatchSampler, DistributedEpochSampler, EpochSampler, MixedSourceSampler
from rebalance.samplers.foreign import ForeignSampler

PLAIN = "EpochSampler(3 rows of 2 classes, rule='none', exponent=1, schedule='none', num_samples=3, seed=0)"
LABELS = [0, 0, 1]


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (EpochSampler(LABELS), PLAIN),
        (
            EpochSampler(LABELS, rule="inverse", exponent=0.5, schedule="deferred", epochs=2.5, num_samples=9, seed=7),
            "EpochSampler(3 rows of 2 classes, rule='inverse', exponent=0.5, schedule='deferred:0.8', epochs=2.5, "
            "num_samples=9, seed=7)",
        ),
        (
            ClassBatchSampler(LABELS, 2, 4, seed=1),
            "ClassBatchSampler(3 rows of 2 classes, classes_per_batch=2, samples_per_class=4, num_batches=1, seed=1)",
        ),
        (
            MixedSourceSampler(EpochSampler(LABELS), None, batch_size=2, real_share=0.5),
            f"MixedSourceSampler({PLAIN}, None, batch_size=2, real_share=1, num_samples=3)",
        ),
        (ForeignSampler(RandomSampler(LABELS)), "ForeignSampler(RandomSampler, num_samples=3, seed=0)"),
        (
            DistributedEpochSampler(LABELS, num_replicas=2, rank=1),
            f"DistributedEpochSampler({PLAIN}, num_replicas=2, rank=1)",
        ),
        (
            DistributedEpochSampler(LABELS, num_replicas=1, rank=0, batch_size=2),
            f"DistributedEpochSampler({PLAIN}, num_replicas=1, rank=0, batch_size=2)",
        ),
    ],
)
def test_a_sampler_says_what_it_draws_and_how(sampler: Any, said: str) -> None:
    assert repr(sampler) == said
