"""Which rows train in which update: the global batches of a whole training, from any update on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np

from rebalance.counts import IntArray
from rebalance.ranks import split_batches
from rebalance.samplers import EpochSampler, MixedSourceSampler


@dataclass(frozen=True)
class Position:
    """Where an update is."""

    update: int
    epoch: int
    ends_epoch: bool


@final
class TrainingBatches:
    """Global batches: the same on every rank, each rank takes its rows.

    An epoch draws as many images as there are real ones. While synthetic images take part, each batch has its share of
    real ones; in the last part of training all are real.

    Args:
        real: Draws real rows, [0, n).
        mixed: Draws batches of real and synthetic rows, or None without synthetic images.
        batch_size: Images of a global batch.
        epochs: Length of training; ignored where `updates` is given.
        updates: Length of training in updates.
        real_only_last: Share of the updates, at the end, without synthetic images.

    Attributes:
        length: Of the whole training in epochs, a fraction where it ends inside one.
        epochs: Epochs that are begun.
    """

    def __init__(
        self,
        real: EpochSampler,
        mixed: MixedSourceSampler | None = None,
        *,
        batch_size: int,
        epochs: int,
        updates: int | None = None,
        real_only_last: float = 0.0,
    ) -> None:
        self.real = real
        self.mixed = mixed
        self.bounds = split_batches(len(real), batch_size)
        self.updates_per_epoch = len(self.bounds)
        self.n_updates = updates if updates is not None else epochs * self.updates_per_epoch
        self.length = self.n_updates / self.updates_per_epoch
        self.epochs = math.ceil(self.length)
        self.first_real_update = round(self.n_updates * (1 - real_only_last))

    def from_update(self, start: int) -> Iterator[tuple[Position, IntArray]]:
        """The batches from update `start` on, with where they are."""
        for epoch in range(start // self.updates_per_epoch, self.epochs):
            first = epoch * self.updates_per_epoch
            rows = self.epoch_rows(epoch)
            for i, (begin, end) in enumerate(self.bounds):
                update = first + i
                if start <= update < self.n_updates:
                    last = i == len(self.bounds) - 1 or update == self.n_updates - 1
                    yield Position(update, epoch, last), rows[begin:end]

    def epoch_rows(self, epoch: int) -> IntArray:
        """All rows of an epoch, in order."""
        until = min(self.first_real_update - epoch * self.updates_per_epoch, self.updates_per_epoch)
        if self.mixed is None or until <= 0:
            return self.real.epoch_order(epoch)
        self.mixed.set_epoch(epoch)
        mixed = np.concatenate(list(self.mixed.batches()))
        if until == self.updates_per_epoch:
            return mixed
        end = self.bounds[until][0]
        return np.concatenate([mixed[:end], self.real.epoch_order(epoch)[end:]])
