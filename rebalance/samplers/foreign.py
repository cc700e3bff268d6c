"""ForeignSampler: a sampler of another package as a function of (seed, epoch)."""

from __future__ import annotations

import copy
import random
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from rebalance.counts import IntArray
from rebalance.draws import random_words
from rebalance.errors import InputError
from rebalance.samplers.base import SeededSampler, check_whole

_COMPARED = 1024  # rows that tell whether the same comes again
_CONTAINERS = (dict, list, tuple, deque)


class ForeignSampler(SeededSampler[int]):
    """Any torch sampler of rows, with an order that follows from its arguments, `seed` and `epoch`.

    Each epoch is drawn by a copy of the sampler and of those within it, so that no epoch depends on those before. What
    they sample from is shared: a `Dataset`, and what has `__getitem__` but is no array or container of Python's own.
    The copy's own random numbers, and torch's, NumPy's and Python's global ones, are seeded for that time; the
    caller's stay as they were. Where it has `set_epoch`, the copy is told the epoch.

    Its length is asked once, here, and holds for every epoch; one that draws more or fewer rows raises.

    Args:
        sampler: The sampler, of one process, with a length.
        seed: Seed of every epoch's order.

    Raises:
        InputError: Batches in place of rows, no length or one that changes from epoch 0 to 1, one rank's part already,
            or a sampler that cannot be copied or does not repeat itself in its first 1,024 rows. While iterating:
            another number of rows than its length.

    Examples:
        >>> from torch.utils.data import RandomSampler
        >>> sampler = ForeignSampler(RandomSampler(range(5)))
        >>> list(sampler) == list(sampler), sorted(sampler)
        (True, [0, 1, 2, 3, 4])
    """

    def __init__(self, sampler: Sampler[Any], *, seed: int = 0) -> None:
        self.source = sampler
        self._name = type(sampler).__name__
        self.seed = check_whole(seed, "seed")
        if getattr(sampler, "num_replicas", 1) != 1:
            raise InputError("a sampler of one process", f"{self._name}, one rank's part", "pass what it was made from")
        if not hasattr(sampler, "__len__"):
            raise InputError("a sampler with a length", f"{self._name} without", "pass one whose epoch ends")
        self.num_samples = check_whole(len(sampler), f"the length of {self._name}", least=1)
        with self._drawer(epoch=1) as drawer:
            if len(drawer) != self.num_samples:
                raise InputError(
                    "a sampler with one length for all epochs",
                    f"{self._name} with {self.num_samples}, then {len(drawer)}",
                    "pass a sampler whose length is that of every epoch",
                )
        if not np.array_equal(self._order(_COMPARED), self._order(_COMPARED)):
            raise InputError(
                "a sampler that draws the same again under the same seed",
                f"{self._name}, which does not",
                "let it draw from torch's, NumPy's or Python's random numbers, or use one of rebalance.samplers",
            )

    def chunks(self) -> Iterator[IntArray]:
        """The rows of the epoch that are not consumed yet, as one int64 array."""
        yield self._order()[self._consumed :]

    def __iter__(self) -> Iterator[int]:
        self.begin()
        yield from self._order()[self._consumed :].tolist()

    def drawn_by(self) -> dict[str, Any]:
        """The sampler's class; what it has inside is not known."""
        return {"sampler": self._name}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name}, num_samples={self.num_samples}, seed={self.seed})"

    def __len__(self) -> int:
        return self.num_samples

    @contextmanager
    def _drawer(self, epoch: int) -> Iterator[Any]:
        """A copy of the sampler that was told `epoch`, while random numbers follow from seed and epoch."""
        drawer, generators = _copied(self.source)
        with _seeded(random_words((self.seed, epoch), 0, 1 + len(generators)).tolist(), generators):
            if hasattr(drawer, "set_epoch"):
                drawer.set_epoch(epoch)
            yield drawer

    def _order(self, most: int | None = None) -> IntArray:
        """The rows of the epoch, all or the first `most`, shape (rows,)."""
        expected = self.num_samples if most is None else min(most, self.num_samples)
        with self._drawer(self.epoch) as drawer:
            drawn = list(islice(drawer, expected + (expected == self.num_samples)))
        try:
            rows = np.array(drawn)
        except ValueError:  # batches, not all of one size
            rows = np.empty((0, 0))
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
            raise InputError("a sampler of rows", f"{self._name}, of something else", "pass row numbers and batch_size")
        if rows.size != expected:
            raise InputError(
                f"the {self.num_samples} rows that {self._name} says",
                "more" if rows.size > expected else str(rows.size),
                "pass a sampler whose length is that of every epoch",
            )
        return rows.astype(np.int64)


def _copied(sampler: Sampler[Any]) -> tuple[Any, list[Any]]:
    """A copy of `sampler` and every generator of random numbers in it."""
    memo = _sampled_from(sampler)
    shared = set(memo)
    try:
        copied = copy.deepcopy(sampler, memo)
    except Exception as error:  # whatever the classes within it raise
        raise InputError(
            "a sampler that can be copied", f"{type(sampler).__name__}: {error}", "use one of rebalance.samplers"
        ) from error
    kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
    return copied, [value for key, value in memo.items() if key not in shared and isinstance(value, kinds)]


def _sampled_from(sampler: Sampler[Any]) -> dict[int, Any]:
    """What `sampler` and the samplers within it draw from, by id."""
    data: dict[int, Any] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", sampler)]
    while waiting:
        name, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Sampler):
            waiting += vars(value).items()
        elif name in ("data_source", "dataset") or isinstance(value, Dataset) or _is_indexed(value):
            data[id(value)] = value
        elif isinstance(value, _CONTAINERS):
            inner = value.values() if isinstance(value, dict) else value
            waiting += [("", item) for item in inner if not isinstance(item, (int, float, str))]
    return data


def _is_indexed(value: Any) -> bool:
    """Whether `value` is got from by index and is no state of a sampler, such as an order that it shuffles."""
    if not hasattr(value, "__getitem__") or hasattr(value, "__array__"):
        return False
    return type(value) is not list and not isinstance(value, (dict, tuple, deque, array, bytearray))


@contextmanager
def _seeded(words: list[int], generators: list[Any]) -> Iterator[None]:
    """Within, `generators` and global random numbers follow from `words`; after it, the latter are as they were."""
    before = torch.default_generator.get_state(), np.random.get_state(), random.getstate()
    try:
        torch.default_generator.manual_seed(words[0])  # torch.manual_seed would reach into every GPU
        np.random.seed(words[0])
        random.seed(words[0])
        for generator, word in zip(generators, words[1:], strict=True):
            if isinstance(generator, torch.Generator):
                generator.manual_seed(word)
            elif isinstance(generator, np.random.Generator):
                generator.bit_generator.state = type(generator.bit_generator)(word).state
            else:
                generator.seed(word)
        yield
    finally:
        torch.default_generator.set_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
