"""A word of warning, by its first updates, where a training is going to take long."""

from __future__ import annotations

import time
import warnings
from statistics import median
from typing import final

import torch

from rebalance.durations import minutes_in_words
from rebalance.user_code import user_level

LONG = 10.0  # minutes
_TIMED = 6
"""Updates that are timed; the first of them chooses kernels and fills caches."""
_PATIENCE = 20.0
"""Seconds after which those timed so far have to do."""


@final
class TrainingClock:
    """Times the first updates, and warns once where all of them will take more than ten minutes.

    Args:
        updates: Length of the training.
        device: Where it runs.
    """

    def __init__(self, updates: int, device: torch.device) -> None:
        self.updates = updates
        self.device = device
        self.seconds: list[float] = []
        self.begun = self.last = time.perf_counter()
        self.told = False

    def update(self) -> None:
        """An update is done."""
        if self.told:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now
        if len(self.seconds) < _TIMED and now - self.begun < _PATIENCE:
            return
        self.told = True
        minutes = median(self.seconds[1:] or self.seconds) * self.updates / 60
        if minutes > LONG:
            warnings.warn(
                f"this training will take about {minutes_in_words(minutes)} here: fewer updates, or a smaller "
                "batch_size or channels, shorten it; verbose=True shows the progress",
                UserWarning,
                stacklevel=user_level(),
            )
