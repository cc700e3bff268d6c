"""How long a training will take, by a few timed updates."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path
from statistics import median

import torch

from pipelines.config import TrainConfig
from pipelines.console import log
from pipelines.loop import training_steps
from pipelines.open_data import OpenData
from pipelines.optimization import build_optimizer
from pipelines.precision import with_precision
from pipelines.preparation import Prepared, prepare_training
from rebalance.devices import kept_random_state
from rebalance.ranks import broadcast, world_size

_SLOW = 2
"""First updates, which choose kernels and fill caches."""
_TIMED = 5
"""Updates after them, which are timed."""
_ENOUGH = 20.0
"""Seconds after which no further update is timed: where updates are that long, the first tells enough."""
_PROBE_PIXELS = 128 * 64**2
"""Pixels of the batch that is timed on a CPU, where a small one tells of a large one; a GPU takes the whole batch."""
_PROBE_IMAGES = 8
"""The fewest images of that batch."""


def training_minutes(config: TrainConfig, opened: OpenData, device: torch.device, folder: Path | None = None) -> float:
    """About how many minutes a training takes, without its evaluation and compilation; the same on every rank.

    Args:
        config: Of the training.
        opened: Its data.
        device: Where it runs.
        folder: Its run folder, where it was begun, see `with_precision`.
    """
    config = with_precision(config, device, opened.size, folder)
    log.info("timing some updates of %s", config.objective.recipe)
    with kept_random_state(device):
        prepared = prepare_training(config, opened, device)
        batches = prepared.batches
        n_images = n_probed = max(end - begin for begin, end in batches.bounds)
        if device.type == "cpu":
            n_probed = min(n_images, world_size() * max(_PROBE_IMAGES, _PROBE_PIXELS // opened.size**2))
        batches.bounds = [(begin, min(end, begin + n_probed)) for begin, end in batches.bounds]
        times = _time_updates(config, prepared, device)
    seconds = [after - before for before, after in pairwise(times)]
    usual = seconds[_SLOW:] or seconds[-1:]
    return broadcast(median(usual) * n_images / n_probed * batches.n_updates / 60)


def _time_updates(config: TrainConfig, prepared: Prepared, device: torch.device) -> list[float]:
    """When training began, and when each of its first updates had ended, s."""
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
            if broadcast(times[-1] - times[0]) > _ENOUGH:
                break
    return times
