from __future__ import annotations

import random
import threading
from array import array
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, Dataset, RandomSampler, Sampler, SubsetRandomSampler, WeightedRandomSampler
from torch.utils.data.distributed import DistributedSampler

from rebalance.errors import InputError
from rebalance.samplers.foreign import ForeignSampler


class Drawn(Sampler[int]):
    """Yields what a function returns; holds what it is given."""

    def __init__(self, draw: Any, length: int = 6, held: Any = None) -> None:
        self.draw, self.length, self.held = draw, length, held

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(self.draw(self))


class Shuffling(Sampler[int]):
    """Goes on from the order in which it stopped."""

    def __init__(self, kind: Any = list) -> None:
        self.rows = kind(range(50))

    def __len__(self) -> int:
        return 50

    def __iter__(self) -> Iterator[int]:
        random.shuffle(self.rows)
        return iter([int(self.rows[place]) for place in range(50)])


class NoCopies(Drawn):
    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        raise RuntimeError("one is enough")


MAKERS = {
    "weights": lambda: WeightedRandomSampler([0.9, *[0.1] * 49], 50),
    "a generator": lambda: RandomSampler(range(50), generator=torch.Generator().manual_seed(random.getrandbits(30))),
    "a subset": lambda: SubsetRandomSampler(range(50)),
    "NumPy": lambda: Drawn(lambda _: np.random.permutation(50), 50),
    "Python": lambda: Drawn(lambda _: random.sample(range(50), 50), 50),
    "a nested generator": lambda: Drawn(
        lambda its: its.held["random"][0].permutation(50), 50, {"random": [np.random.default_rng()]}
    ),
    "a random state": lambda: Drawn(lambda its: its.held.permutation(50), 50, np.random.RandomState()),
    "Python's own": lambda: Drawn(lambda its: its.held.sample(range(50), 50), 50, random.Random()),
    "a state that moves": Shuffling,
    "a moving array": lambda: Shuffling(np.array),
    "a moving array of Python's": lambda: Shuffling(lambda rows: array("i", rows)),
    "a moving byte array": lambda: Shuffling(bytearray),
    "a moving queue": lambda: Shuffling(deque),
    "a moving dict": lambda: Shuffling(lambda rows: {row: row for row in rows}),
    "a sampler within": lambda: Drawn(lambda its: its.held, 50, Shuffling()),
    "samplers within": lambda: Drawn(lambda its: its.held["all"][0], 50, {"all": (Shuffling(),)}),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_the_order_is_a_function_of_seed_and_epoch(kind: str) -> None:
    first, second = ForeignSampler(MAKERS[kind](), seed=3), ForeignSampler(MAKERS[kind](), seed=3)
    ordered(second, 4)  # an epoch more than the other
    orders = [ordered(first, epoch) for epoch in range(3)]
    assert orders == [ordered(second, epoch) for epoch in range(3)]
    assert orders[0] != orders[1] != orders[2]
    assert orders[1] != ordered(ForeignSampler(MAKERS[kind](), seed=4), 1)


def ordered(sampler: ForeignSampler, epoch: int) -> list[int]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_random_numbers_of_the_caller_are_neither_read_nor_moved() -> None:
    generator = torch.Generator().manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), generator.get_state()  # type: ignore[index]
    list(ForeignSampler(RandomSampler(range(50), generator=generator)))
    for kind in ("weights", "a subset", "NumPy", "Python", "a nested generator", "a state that moves"):
        list(ForeignSampler(MAKERS[kind]()))
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]
    assert random.getstate() == before[2]
    assert torch.equal(generator.get_state(), before[3])


def test_resume_in_the_middle_yields_the_rest() -> None:
    sampler = ForeignSampler(Shuffling(), seed=2)
    whole = ordered(sampler, 3)
    sampler.consumed(20)
    resumed = ForeignSampler(Shuffling())
    resumed.load_state_dict(sampler.state_dict())
    assert list(resumed) == whole[20:] == np.concatenate(list(resumed.chunks())).tolist()
    assert len(resumed) == 50


def test_a_sampler_with_epochs_is_told_them() -> None:
    shuffled = DistributedSampler(range(50), num_replicas=1, rank=0, seed=9)  # type: ignore[arg-type]
    sampler = ForeignSampler(shuffled)
    shuffled.set_epoch(2)
    assert ordered(sampler, 2) == list(shuffled)


class Locked(Dataset[int]):
    """A data set that cannot be copied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return 5


class AsArray(Locked):
    def __array__(self) -> np.ndarray:
        return np.zeros(5)


class Rows(list[int]):
    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        raise AssertionError("copied")


class Duck:
    """A data set by what it does."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __getitem__(self, row: int) -> int:
        return row

    def __len__(self) -> int:
        return 5


@pytest.mark.parametrize("data", [Locked(), AsArray(), Rows(range(5)), Duck()], ids=lambda data: type(data).__name__)
@pytest.mark.parametrize(
    "hold",
    [
        RandomSampler,
        lambda data: Drawn(lambda its: np.random.permutation(len(its.held)), 5, data),
        lambda data: Drawn(lambda its: its.held, 5, RandomSampler(data)),
        lambda data: Drawn(lambda its: its.held.sampler, 5, BatchSampler(RandomSampler(data), 2, False)),
        lambda data: Drawn(lambda its: its.held[0]["one"], 5, ({"one": RandomSampler(data)},)),
    ],
    ids=["as its source", "under another name", "in a sampler", "in a sampler of a sampler", "in a list of samplers"],
)
def test_a_data_set_is_not_copied_wherever_a_sampler_holds_it(hold: Any, data: Any) -> None:
    assert sorted(ForeignSampler(hold(data))) == list(range(5))


@pytest.mark.parametrize("torchs", [RandomSampler, lambda rows: DistributedSampler(rows, num_replicas=1, rank=0)])
def test_a_list_of_samples_is_not_copied(torchs: Any) -> None:
    assert sorted(ForeignSampler(torchs([threading.Lock()] * 5))) == list(range(5))


def test_making_one_draws_no_whole_epoch() -> None:
    drawn = []

    def draw(_: Any) -> Iterator[int]:
        for row in range(10**5):
            drawn.append(row)
            yield row

    sampler = ForeignSampler(Drawn(draw, 10**5))
    assert len(drawn) < 5000
    assert list(sampler) == list(range(10**5))


class Growing(Sampler[int]):
    """Draws a row more in each epoch from `start` on, and tells its length from the beginning or as it is."""

    def __init__(self, start: int, tells: bool) -> None:
        self.start, self.tells, self.epoch = start, tells, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 10**4 + (max(self.epoch - self.start, 0) if self.tells else 0)

    def __iter__(self) -> Iterator[int]:
        return iter(range(10**4 + max(self.epoch - self.start, 0)))


def test_a_length_that_changes_with_the_epoch_is_refused_before_training() -> None:
    with pytest.raises(InputError, match="one length for all epochs; got Growing with 10000, then 10001"):
        ForeignSampler(Growing(0, tells=True))


@pytest.mark.parametrize("tells", [True, False])
def test_an_epoch_with_more_rows_than_the_first_is_refused(tells: bool) -> None:
    sampler = ForeignSampler(Growing(3, tells))
    assert len(ordered(sampler, 3)) == 10**4
    with pytest.raises(InputError, match="expected the 10000 rows that Growing says; got more"):
        ordered(sampler, 4)


def test_weights_that_change_during_training_take_effect() -> None:
    theirs = WeightedRandomSampler([1.0, 0.0], 10)
    sampler = ForeignSampler(theirs)
    assert set(sampler) == {0}
    theirs.weights = torch.tensor([0.0, 1.0], dtype=torch.double)
    assert set(sampler) == {1}


def test_m_per_class_sampler_draws_the_same_each_time() -> None:
    pml = pytest.importorskip("pytorch_metric_learning.samplers")
    labels = np.arange(60) % 5
    orders = [
        ordered(ForeignSampler(pml.MPerClassSampler(labels, 4, length_before_new_iter=60)), epoch)
        for epoch in (0, 1, 1)
    ]
    assert orders[0] != orders[1] == orders[2]


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (BatchSampler(range(6), 2, False), "expected a sampler of rows; got BatchSampler, of something else"),
        (BatchSampler(range(7), 2, False), "expected a sampler of rows; got BatchSampler, of something else"),
        (DistributedSampler(range(6), num_replicas=2, rank=0), "got DistributedSampler, one rank's part"),  # type: ignore[arg-type]
        (Sampler(), "expected a sampler with a length; got Sampler without"),
        (Drawn(lambda _: range(6), 5), "expected the 5 rows that Drawn says; got more"),
        (Drawn(lambda _: range(6), 7), "expected the 7 rows that Drawn says; got 6"),
        (Drawn(lambda _: [], 0), "expected the length of Drawn as a whole number of at least 1"),
        (Drawn(lambda _: "abcdef"), "expected a sampler of rows"),
        (Drawn(lambda _: random.SystemRandom().sample(range(99), 40), 40), "draws the same again under the same seed"),
        (NoCopies(lambda _: range(6)), "expected a sampler that can be copied; got NoCopies: one is enough"),
    ],
)
def test_what_does_not_repeat_is_refused(sampler: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ForeignSampler(sampler)
