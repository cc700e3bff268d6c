"""What every sampler here has: a seed, an epoch, and how much of the epoch is consumed."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

import numpy as np
from torch.utils.data import Sampler

from rebalance.counts import IntArray
from rebalance.errors import InputError
from rebalance.samplers.loader_count import is_loader_count

T_co = TypeVar("T_co", covariant=True)

log = logging.getLogger("rebalance")
_TOLD_AT = 3  # iterations: one may look at an order before it trains


class SeededSampler(Sampler[T_co], ABC):
    """A sampler whose order follows from its arguments, `seed` and `epoch` alone.

    Iterating does not move it: the loop calls `set_epoch` before each epoch and, where it wants to resume in the
    middle of one, `consumed` after each step. A loader runs ahead of training, so only the loop knows. A loop that does
    not call `set_epoch` has the same order in every epoch, and is warned.

    Loaders that accelerate or Lightning Fabric prepared call `set_epoch` too, with a count of their own iterations,
    from 0. What the loop said stands above it: the count goes on from the epoch that was named or loaded last.
    """

    seed: int
    num_samples: int
    """Draws of an epoch, over all ranks together."""
    epoch: int = 0
    _consumed: int = 0
    _iterations: int | None = 0  # begun without an epoch being named; None once one was, or the warning was given
    _said: Literal["loaded", "named"] | None = None  # by the loop, since the last iteration began
    _ahead: int | None = 0  # epochs, of a loader's own count; None where the loop spoke and no loader counted since

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch that the next iteration draws; another epoch than now starts at its beginning."""
        epoch = check_whole(epoch, "epoch")
        self._iterations = None
        if is_loader_count():
            epoch = self._epoch_at(epoch)
        else:
            self._tell_of_lost_rest(epoch)
            self._said, self._ahead = "named", None
        if epoch != self.epoch:
            self.epoch, self._consumed = epoch, 0

    def consumed(self, n: int) -> None:
        """Records that training went through `n` more draws of this epoch, over all ranks together.

        The next iteration starts after them. Repeats with which a loader fills its last batch do not count.
        """
        self._consumed = min(self._consumed + check_whole(n, "consumed draws"), self.num_samples)

    def state_dict(self) -> dict[str, Any]:
        """Where training is: JSON-ready, the same on every rank, whatever the number of ranks."""
        return {
            "seed": self.seed,
            "epoch": self.epoch,
            "consumed": self._consumed,
            "num_samples": self.num_samples,
            "drawn_by": self.drawn_by(),
        }

    def drawn_by(self) -> dict[str, Any]:
        """What the order follows from beside seed and epoch, by name, JSON-ready: part of the state."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken; the next iteration yields what was not consumed.

        Raises:
            InputError: The state is of a sampler with another length, or one that draws by something else; what a state
                without `drawn_by` draws by is not known, and not compared.
        """
        if state_dict["num_samples"] != self.num_samples:
            raise InputError(
                f"the state of a sampler with {self.num_samples} draws an epoch",
                f"one with {state_dict['num_samples']}",
                "resume with the data and the settings that the state was saved with",
            )
        self._check_drawn_by(state_dict.get("drawn_by"))
        self.seed = check_whole(state_dict["seed"], "seed")
        self.epoch = check_whole(state_dict["epoch"], "epoch")
        self._consumed = check_whole(state_dict["consumed"], "consumed draws")
        self._said, self._ahead = "loaded", None

    def _check_drawn_by(self, theirs: dict[str, Any] | None) -> None:
        if theirs is None:
            return
        ours = self.drawn_by()
        for name in ours | theirs:
            if not _alike(ours.get(name), theirs.get(name)):
                raise InputError(
                    f"the state of a sampler with {name} = {ours.get(name)!r}",
                    f"one with {name} = {theirs.get(name)!r}",
                    "resume with the data and the settings that the state was saved with",
                )

    def begin(self) -> None:
        """What `__iter__` calls first: warns of a loop that names no epoch, from its third iteration on."""
        self._said = None
        if self._iterations is None:
            return
        self._iterations += 1
        if self._iterations >= _TOLD_AT:
            self._iterations = None
            log.warning(
                "%s was iterated %d times without set_epoch, so each time %s; call set_epoch(epoch) before each epoch",
                type(self).__name__,
                _TOLD_AT,
                "nothing is left of it" if self._consumed >= self.num_samples else "it draws the same rows",
            )

    def _epoch_at(self, count: int) -> int:
        """The epoch at a loader's own `count`; one that is drawn to its end leads to the next, unless just named."""
        if self._ahead is None:
            self._ahead = self.epoch - count
        finished = self._consumed >= self.num_samples and self._said != "named"
        if finished and count + self._ahead == self.epoch:
            self._ahead += 1
        return max(count + self._ahead, 0)  # a second loader may count from 0 once more

    def _tell_of_lost_rest(self, epoch: int) -> None:
        if self._said == "loaded" and epoch != self.epoch and 0 < self._consumed < self.num_samples:
            log.warning(
                "set_epoch(%d) leaves epoch %d, which was loaded after %d of its %d draws: the rest is not drawn; "
                "to go on there, name epoch %d first",
                epoch,
                self.epoch,
                self._consumed,
                self.num_samples,
                self.epoch,
            )

    @abstractmethod
    def __iter__(self) -> Iterator[T_co]: ...

    @abstractmethod
    def __len__(self) -> int:
        """Items of a whole epoch, also when resumed in the middle of one."""


class BatchSampler(SeededSampler[list[int]], ABC):
    """A sampler of whole batches, for `DataLoader(batch_sampler=…)`."""

    smallest_batch: int
    """Rows of the smallest batch of an epoch."""

    @property
    def sampler(self) -> BatchSampler:
        """Itself: where the prepared loaders of accelerate, and Lightning, look for what to tell the epoch."""
        return self

    @sampler.setter
    def sampler(self, sampler: object) -> None:
        if sampler is not self:
            raise InputError(
                f"{type(self).__name__} as its own sampler, as it draws rows and batches at once",
                type(sampler).__name__,
                "make a new loader with the other sampler",
            )

    @abstractmethod
    def batches(self) -> Iterator[IntArray]:
        """The batches of the epoch that are not consumed yet, as int64 arrays."""

    def __iter__(self) -> Iterator[list[int]]:
        self.begin()
        for batch in self.batches():
            yield batch.tolist()


class Feed:
    """Takes any number of rows at a time out of a stream of chunks."""

    def __init__(self, chunks: Iterator[IntArray]) -> None:
        self._chunks = chunks
        self._rest: IntArray = np.empty(0, dtype=np.int64)

    def take(self, n: int) -> IntArray:
        """The next `n` rows."""
        parts = [self._rest]
        have = self._rest.size
        while have < n:
            parts.append(next(self._chunks))
            have += parts[-1].size
        rows = np.concatenate(parts) if len(parts) > 1 else self._rest
        self._rest = rows[n:]
        return rows[:n]


def check_whole(value: int, name: str, least: int = 0) -> int:
    """`value` as a whole number of at least `least`.

    Raises:
        InputError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{name} as a whole number of at least {least}", repr(value), f"pass {name} = {least} or more")
    return int(value)


def _alike(ours: Any, theirs: Any) -> bool:
    """Whether two settings draw the same; a number may have been rounded to float32."""
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-6)
    return bool(ours == theirs)
