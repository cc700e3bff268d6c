"""What a sampler's state holds of what it draws by, and where it is refused."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch.utils.data import RandomSampler, SequentialSampler

from rebalance.errors import InputError
from rebalance.samplers import ClassBatchSampler, DistributedEpochSampler, EpochSampler, MixedSourceSampler
from rebalance.samplers.foreign import ForeignSampler

LABELS = [0, 0, 0, 0, 1, 1, 2, 2]


def by_epoch(labels: Any = LABELS, **options: Any) -> EpochSampler:
    return EpochSampler(labels, **{"rule": "inverse", **options})


def by_class(labels: Any = LABELS, n_classes: int = 2, n_images: int = 1) -> ClassBatchSampler:
    return ClassBatchSampler(labels, n_classes, n_images, num_batches=4)


def mixed(real: Any = LABELS, synthetic: Any = (2, 2), share: float = 0.5, batch_size: int = 4) -> MixedSourceSampler:
    made = None if synthetic is None else EpochSampler(list(synthetic))
    return MixedSourceSampler(EpochSampler(real), made, batch_size=batch_size, real_share=share, num_samples=8)


OTHERS: list[tuple[Any, Any, str]] = [
    (by_epoch(), by_epoch(rule="none"), "rule = 'none'; got one with rule = 'inverse'"),
    (by_epoch(), by_epoch(LABELS[::-1]), r"labels_crc32 = \d+; got one with labels_crc32 = \d+"),
    (by_epoch(), by_epoch([0, 0, 0, 0, 1, 2, 1, 2]), "labels_crc32"),
    (by_epoch(), by_epoch([0, 0, 0, 1, 1, 1, 2, 2]), "labels_crc32"),
    (by_epoch(), by_epoch(exponent=0.5), "exponent = 0.5; got one with exponent = 1.0"),
    (by_epoch(), by_epoch(schedule="deferred", epochs=4), "schedule = 'deferred:0.8'; got one with schedule = 'none'"),
    (
        by_epoch(schedule="deferred", epochs=4),
        by_epoch(schedule="deferred", epochs=8),
        "epochs = 8; got one with epochs = 4",
    ),
    (
        by_epoch(rule="effective-number"),
        by_epoch(rule="effective-number", cb_beta=0.9),
        "cb_beta = 0.9; got one with cb_beta = 'auto'",
    ),
    (
        by_epoch(rule="custom", custom={"0": 1, "1": 2, "2": 3}),
        by_epoch(rule="custom", custom={"0": 1, "1": 2, "2": 4}),
        "custom_crc32",
    ),
    (by_class(LABELS, 2, 1), by_class(LABELS, 1, 2), "classes_per_batch = 1; got one with classes_per_batch = 2"),
    (by_class(), by_class(LABELS[::-1]), "labels_crc32"),
    (mixed(), mixed(share=0.25), "real_share = 0.25; got one with real_share = 0.5"),
    (mixed(), mixed(synthetic=(2, 1)), "synthetic labels_crc32"),
    (mixed(), mixed(real=LABELS[::-1]), "real labels_crc32"),
    (
        ForeignSampler(RandomSampler(LABELS)),
        ForeignSampler(SequentialSampler(LABELS)),
        "sampler = 'SequentialSampler'; got one with sampler = 'RandomSampler'",
    ),
    (ForeignSampler(RandomSampler(LABELS)), by_epoch(), "rule = 'inverse'; got one with rule = None"),
    (DistributedEpochSampler(by_epoch()), DistributedEpochSampler(by_epoch(rule="none")), "rule = 'none'; got"),
]


@pytest.mark.parametrize(("saved", "other", "message"), OTHERS)
def test_the_state_of_one_that_draws_by_something_else_is_refused_and_changes_nothing(
    saved: Any, other: Any, message: str
) -> None:
    saved.set_epoch(3)
    before = other.state_dict()
    with pytest.raises(InputError, match=f"expected the state of a sampler with {message}.*; resume with the data"):
        other.load_state_dict(saved.state_dict())
    assert other.state_dict() == before


SAME: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
    (by_epoch, lambda: by_epoch(np.array(LABELS, dtype=np.uint8), exponent=1, seed=5, cb_beta=0.5)),
    (lambda: by_epoch(rule="none"), lambda: by_epoch(rule="none", exponent=2, epochs=7)),
    (
        lambda: by_epoch(rule="custom", custom={"0": 1, "1": 2, "2": 3}),
        lambda: by_epoch(rule="custom", custom={2: 3.0, 1: 2.0, 0: 1.0}),
    ),
    (by_class, by_class),
    (mixed, lambda: mixed(batch_size=2)),
    (lambda: mixed(synthetic=None), lambda: mixed(synthetic=None, share=0.25)),
    (lambda: DistributedEpochSampler(by_epoch(), num_replicas=2, rank=1), by_epoch),
]


@pytest.mark.parametrize(("saved", "other"), SAME)
def test_a_state_survives_json_and_goes_into_one_that_draws_alike(
    saved: Callable[[], Any], other: Callable[[], Any]
) -> None:
    sampler, resumed = saved(), other()
    sampler.set_epoch(3)
    sampler.consumed(4)
    state = json.loads(json.dumps(sampler.state_dict()))
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state


def test_a_state_that_does_not_tell_what_it_draws_by_is_loaded() -> None:
    sampler = by_epoch()
    sampler.load_state_dict({"seed": 1, "epoch": 2, "consumed": 3, "num_samples": 8})
    assert (sampler.seed, sampler.epoch, len(list(sampler))) == (1, 2, 5)


def test_the_checksum_of_labels_is_the_same_everywhere() -> None:
    labels = np.arange(8, dtype="<u4").tobytes() + np.array([4, 2, 2], dtype="<i8").tobytes()
    assert by_epoch().drawn_by()["labels_crc32"] == zlib.crc32(labels) == 595287978


@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_numbers_of_numpy_are_saved_as_python_s_and_found_again(number: Any) -> None:
    sampler = by_epoch(rule="effective-number", cb_beta=number(0.99), exponent=number(0.3))
    state = json.loads(json.dumps(sampler.state_dict()))
    by_epoch(rule="effective-number", cb_beta=0.99, exponent=0.3).load_state_dict(state)
    with pytest.raises(InputError, match="cb_beta"):
        by_epoch(rule="effective-number", cb_beta=0.98, exponent=0.3).load_state_dict(state)
