from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch.utils.data import DataLoader, TensorDataset

from rebalance.errors import InputError
from rebalance.samplers import ClassBatchSampler

COUNTS = np.array([40, 17, 9, 4, 3, 1, 1])
LABELS = np.random.default_rng(3).permutation(np.repeat(np.arange(7), COUNTS))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_coverage_is_exact_on_both_levels(data: st.DataObject) -> None:
    counts = np.array(data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=12)))
    labels = np.repeat(np.arange(counts.size), counts)
    n_classes = data.draw(st.integers(1, counts.size))
    n_images = data.draw(st.integers(1, 6))
    sampler = ClassBatchSampler(labels, n_classes, n_images, seed=data.draw(st.integers(0, 99)))
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert labels.size <= sum(map(len, batches)) == sampler.num_samples
    rounds = -(-counts.size // n_classes)
    assert len(batches) % rounds == 0
    shown: list[list[int]] = [[] for _ in counts]
    for begin in range(0, len(batches), rounds):
        assert {int(c) for batch in batches[begin : begin + rounds] for c in labels[batch]} == set(range(counts.size))
    for batch in batches:
        grid = np.array(batch).reshape(n_images, n_classes)
        assert (labels[grid] == labels[grid[0]]).all()
        assert np.unique(labels[grid[0]]).size == n_classes
        for rows in grid.T:
            c = labels[rows[0]]
            assert np.unique(rows).size == min(n_images, counts[c])
            shown[c].extend(rows)
    times = [len(rows) // n_images for rows in shown]
    assert max(times) - min(times) <= 1
    for c, rows in enumerate(shown):
        cycle = -(-counts[c] // n_images) * n_images
        for begin in range(0, len(rows) - cycle + 1, cycle):
            assert set(rows[begin : begin + cycle]) == set(np.flatnonzero(labels == c))


def test_batches_are_a_function_of_seed_and_epoch() -> None:
    first, second = ClassBatchSampler(LABELS, 3, 4, seed=1), ClassBatchSampler(LABELS, 3, 4, seed=1)
    list(first)
    assert list(first) == list(second)
    second.set_epoch(1)
    assert list(first) != list(second)
    assert list(first) != list(ClassBatchSampler(LABELS, 3, 4, seed=2))


def test_pairs_of_classes_meet_evenly() -> None:
    sampler = ClassBatchSampler(np.arange(6), 2, 1, num_batches=3000)
    pairs = np.sort(np.array(list(sampler)), axis=1)
    times = np.unique(pairs @ [6, 1], return_counts=True)[1]
    assert times.size == 15
    assert chisquare(times).pvalue > 0.001


def test_pairs_of_images_meet_evenly() -> None:
    sampler = ClassBatchSampler([0] * 5, 1, 2, num_batches=6000)
    pairs = np.sort(np.array(list(sampler)), axis=1)
    times = np.unique(pairs @ [5, 1], return_counts=True)[1]
    assert times.size == 10
    assert chisquare(times).pvalue > 0.001


@pytest.mark.parametrize("batches_done", [0, 1, 2, 5, 8])
def test_resume_in_the_middle_yields_the_rest(batches_done: int) -> None:
    sampler = ClassBatchSampler(LABELS, 3, 4, num_batches=8, seed=4)
    sampler.set_epoch(2)
    whole = list(sampler)
    for batch in whole[:batches_done]:
        sampler.consumed(len(batch))
    resumed = ClassBatchSampler(LABELS, 3, 4, num_batches=8)
    resumed.load_state_dict(sampler.state_dict())
    assert list(resumed) == whole[batches_done:]
    assert len(resumed) == 8


def test_half_a_batch_cannot_be_resumed() -> None:
    sampler = ClassBatchSampler(LABELS, 3, 4)
    sampler.consumed(5)
    with pytest.raises(InputError, match="expected whole batches of 12 consumed rows; got 5"):
        next(iter(sampler))


def test_a_loader_takes_it_as_batch_sampler() -> None:
    sampler = ClassBatchSampler(torch.from_numpy(LABELS), 7, 2)
    loader = DataLoader(TensorDataset(torch.arange(LABELS.size)), batch_sampler=sampler)
    assert [rows.tolist() for (rows,) in loader] == list(sampler)


def test_classes_without_images_are_left_out() -> None:
    sampler = ClassBatchSampler([0, 0, 3], 2, 1, classes=["a", "b", "c", "d"])
    assert {frozenset(np.array([0, 0, 3])[batch].tolist()) for batch in sampler} == {frozenset({0, 3})}


def test_many_classes() -> None:
    sampler = ClassBatchSampler(np.arange(100_000) % 30_001, 64, 2)
    seen = np.bincount(np.concatenate([np.array(batch[:64]) for batch in sampler]) % 30_001)
    assert seen.max() - seen.min() <= 1


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((8, 1), {}, "at most 7 classes a batch, as many as have images; got 8"),
        ((0, 1), {}, "classes_per_batch as a whole number of at least 1; got 0"),
        ((2, 0), {}, "samples_per_class as a whole number of at least 1"),
        ((2, 1.5), {}, "samples_per_class as a whole number"),
        ((2, 2), {"num_batches": 0}, "num_batches as a whole number of at least 1"),
        ((2, 2), {"seed": -3}, "seed as a whole number of at least 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassBatchSampler(LABELS, *arguments, **options)
