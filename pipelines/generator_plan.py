"""What a kind of generator brings to a synthesis: its cost, its training, its jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from generators.base import ImageGenerator, Job
from pipelines.console import progress_bar
from pipelines.open_data import OpenData
from pipelines.session import Session
from rebalance.counts import IntArray
from rebalance.data.table import ImageTable


@dataclass(frozen=True)
class Workshop:
    """Where a generator is trained, and on what.

    Args:
        opened: The data.
        session: Device and ranks.
        folder: For what is trained.
    """

    opened: OpenData
    session: Session
    folder: Path

    @property
    def table(self) -> ImageTable:
        """The real training images that can be read."""
        return self.opened.train.table

    def pixels(self) -> Tensor:
        """Their pixels (N, 3, S, S) uint8 on the CPU, at the classifier's size."""
        n, size = len(self.table), self.opened.size
        pixels, done = torch.empty((n, 3, size, size), dtype=torch.uint8), 0
        for part in self.opened.train.store.batches(np.array_split(np.arange(n, dtype=np.int64), max(1, n // 1024))):
            pixels[done : done + len(part)] = part.cpu()
            done += len(part)
        return pixels


@dataclass(frozen=True)
class Amount:
    """How many images are to be made.

    Args:
        budget: Wanted images of each class (C,).
        reserve: Spare candidates per wanted image.
        seed: Root of all seeds.
    """

    budget: IntArray
    reserve: float
    seed: int


class GeneratorPlan(Protocol):
    """A generator, before it is trained or loaded."""

    @property
    def image_size(self) -> int:
        """Height and width of the images that it hands out, px."""

    @property
    def description(self) -> str:
        """What it is and what of it is trained, for the user."""

    @property
    def megabytes(self) -> float:
        """What is written beside the images, about."""

    def estimate_minutes(self, n_images: int) -> tuple[float, float]:
        """Minutes that training and making so many images will take, from a few timed steps."""

    def make(self, workshop: Workshop) -> ImageGenerator:
        """The generator, trained where it has to be; a training that was interrupted goes on."""

    def jobs(self, generator: ImageGenerator, table: ImageTable, amount: Amount) -> list[list[Job]]:
        """Jobs of each class, in the order they are tried."""


@contextmanager
def training_bar(updates: int, what: str) -> Iterator[Callable[[int, float], None]]:
    """A progress bar as trainings take it: told of updates, and of the loss, NaN where it was not looked at."""
    with progress_bar(updates, what, "updates") as bar:

        def report(done: int, loss: float) -> None:
            bar.update(done)
            if loss == loss:
                bar.note(f"loss {loss:.3f}")

        yield report
