"""ForeignSampler: a sampler of another package as a function of (seed, epoch)."""

from __future__ import annotations

import copy
import random
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


class ForeignSampler(SeededSampler[int]):
    """Any torch sampler of rows, with an order that follows from its arguments, `seed` and `epoch`.

    Each epoch is drawn by a copy of the sampler, which shares its data set, so that no epoch depends on those before.
    The copy's own random numbers, and torch's, NumPy's and Python's global ones, are seeded for that time; the
    caller's stay as they were. Where it has `set_epoch`, the copy is told the epoch.

    Args:
        sampler: The sampler, of one process, with a length.
        seed: Seed of every epoch's order.

    Raises:
        InputError: Batches in place of rows, no length, one rank's part already, or a sampler that cannot be copied or
            does not repeat itself.

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
        if not np.array_equal(self._order(), self._order()):
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

    def __len__(self) -> int:
        return self.num_samples

    def _order(self) -> IntArray:
        """All rows of the epoch, shape (num_samples,)."""
        drawer, generators = _copied(self.source)
        with _seeded(random_words((self.seed, self.epoch), 0, 1 + len(generators)).tolist(), generators):
            if hasattr(drawer, "set_epoch"):
                drawer.set_epoch(self.epoch)
            drawn = list(islice(drawer, self.num_samples + 1))
        try:
            rows = np.array(drawn)
        except ValueError:  # batches, not all of one size
            rows = np.empty((0, 0))
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
            raise InputError("a sampler of rows", f"{self._name}, of something else", "pass row numbers and batch_size")
        if rows.size != self.num_samples:
            raise InputError(
                f"the {self.num_samples} rows that {self._name} says",
                "more" if rows.size > self.num_samples else str(rows.size),
                "pass a sampler whose length is that of every epoch",
            )
        return rows.astype(np.int64)


def _copied(sampler: Sampler[Any]) -> tuple[Any, list[Any]]:
    """A copy of `sampler` and every generator of random numbers in it."""
    memo: dict[int, Any] = {
        id(value): value
        for name, value in vars(sampler).items()
        if isinstance(value, Dataset) or name in ("data_source", "dataset")
    }
    shared = set(memo)
    try:
        copied = copy.deepcopy(sampler, memo)
    except Exception as error:  # whatever the classes within it raise
        raise InputError(
            "a sampler that can be copied", f"{type(sampler).__name__}: {error}", "use one of rebalance.samplers"
        ) from error
    kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
    return copied, [value for key, value in memo.items() if key not in shared and isinstance(value, kinds)]


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
