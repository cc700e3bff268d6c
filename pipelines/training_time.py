"""How long a training will take, by a few timed updates."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path
from statistics import median

import torch

from pipelines.config import TrainConfig
from pipelines.loop import training_steps
from pipelines.open_data import OpenData
from pipelines.optimization import build_optimizer
from pipelines.precision import with_precision
from pipelines.preparation import prepare_training
from rebalance.devices import kept_random_state
from rebalance.ranks import broadcast

_SLOW = 2
"""First updates, which choose kernels and fill caches."""
_TIMED = 5
"""Updates that are timed after them."""


def training_minutes(config: TrainConfig, opened: OpenData, device: torch.device, folder: Path | None = None) -> float:
    """About how many minutes a training takes, without its evaluation and compilation; the same on every rank.

    Args:
        config: Of the training.
        opened: Its data.
        device: Where it runs.
        folder: Its run folder, where it was begun, see `with_precision`.
    """
    config = with_precision(config, device, opened.size, folder)
    with kept_random_state(device):
        prepared = prepare_training(config, opened, device)
        optimizer = build_optimizer(prepared.method, config.optimization, prepared.method.learning_rate_factors)
        steps = training_steps(
            prepared.method,
            prepared.method,
            optimizer,
            prepared.data,
            prepared.batches,
            config.optimization,
            seed=config.seed,
        )
        times = [time.perf_counter()]
        with closing(steps):
            for _ in islice(steps, _SLOW + _TIMED):
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                times.append(time.perf_counter())
    seconds = [after - before for before, after in pairwise(times)]
    usual = seconds[_SLOW:] or seconds[-1:]
    return broadcast(median(usual) * prepared.batches.n_updates / 60)
