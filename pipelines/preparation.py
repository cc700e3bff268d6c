"""From a config to everything that a training is made of: decoded data, samplers, method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from pipelines.batches import TrainingBatches
from pipelines.config import TrainConfig
from pipelines.config_groups import DataConfig, MixingConfig
from pipelines.console import log
from pipelines.loop import TrainingData
from pipelines.model_files import ModelDescription
from pipelines.objective import build_objective, custom_weights
from pipelines.open_data import OpenData
from pipelines.synthetic_images import open_synthetic
from rebalance.counts import FloatArray, IntArray
from rebalance.data.augmentation import MultiView, parse_views
from rebalance.data.store import ImageStore, ResidentStore, WorkerStore
from rebalance.data.table import ImageTable, concatenate
from rebalance.errors import InputError
from rebalance.methods.base import Method
from rebalance.methods.weighting import DrawnShares
from rebalance.ranks import split_batches, world_size
from rebalance.samplers import EpochSampler, MixedSourceSampler
from rebalance.schedules import parse_schedule

Builder = Callable[[TrainConfig, OpenData, FloatArray, DrawnShares], tuple[Method, ModelDescription]]
"""Makes the method, see `build_objective`."""
_LARGE = 64  # px; beyond it AutoAugment's CIFAR policy gives way to what the papers use on ImageNet


@dataclass(frozen=True)
class Prepared:
    """What a training is made of.

    Args:
        method: On the device.
        data: Images, targets, weights.
        batches: The global batch of every update.
        description: How to rebuild the classifier.
        counts: Real and synthetic training images of each class, each (C,).
        expected: Draws of each class in the first epoch, (C,).
        kappa: Worth of one synthetic image in priors and margins.
    """

    method: Method
    data: TrainingData
    batches: TrainingBatches
    description: ModelDescription
    counts: tuple[IntArray, IntArray]
    expected: FloatArray
    kappa: float


def prepare_training(
    config: TrainConfig, opened: OpenData, device: torch.device, build: Builder = build_objective
) -> Prepared:
    """Build method, data and samplers; nothing is written.

    Args:
        config: What to train.
        opened: The data.
        device: Where to.
        build: Makes the method.

    Raises:
        InputError: Settings that do not fit the data or one another.
    """
    table, store = opened.train.table, opened.train.store
    n_real = len(table)
    real_counts = table.counts
    added = open_synthetic(config, opened.config, table, opened.size, device)
    if added is not None:
        table = concatenate(table, added.table)
        store = _join(store, added.store, table, opened, device)
    synthetic_counts = table.counts - real_counts
    batches = _build_batches(config, opened, table.targets, n_real)
    kappa = _worth(config.mixing, batches)
    effective = real_counts + kappa * synthetic_counts
    expected, shares = _draws(batches)
    method, description = build(config, opened, effective, shares)
    augment = _views(config.data, opened.size, method)
    targets = torch.from_numpy(table.targets)
    synthetic = torch.from_numpy(table.is_synthetic.copy())
    data = TrainingData(
        store=store,
        targets=targets.to(device),
        synthetic=synthetic.to(device),
        weight=torch.where(synthetic, config.mixing.synthetic_weight, 1.0).float().to(device),
        augment=augment,
        mean=torch.tensor(description.mean, device=device),
        std=torch.tensor(description.std, device=device),
    )
    memory_format = torch.channels_last if config.optimization.channels_last else torch.contiguous_format
    method = method.to(device).to(memory_format=memory_format)
    return Prepared(method, data, batches, description, (real_counts, synthetic_counts), expected, kappa)


def _build_batches(config: TrainConfig, opened: OpenData, targets: np.ndarray, n_real: int) -> TrainingBatches:
    objective, optimization, mixing = config.objective, config.optimization, config.mixing
    epochs: float = optimization.epochs
    if optimization.updates is not None:
        epochs = optimization.updates / len(split_batches(n_real, optimization.batch_size))
    by_rule = objective.sampler_rule != "none"
    real = EpochSampler(
        targets[:n_real],
        rule=objective.sampler_rule,
        exponent=objective.sampler_strength if by_rule else 1.0,
        schedule=parse_schedule(objective.sampler_schedule if by_rule else "none"),
        epochs=epochs,
        seed=config.seed,
        cb_beta="auto" if objective.cb_beta is None else objective.cb_beta,
        custom=custom_weights(config) if by_rule else None,
        classes=opened.classes,
    )
    mixed = None
    if len(targets) > n_real:
        share = max(mixing.real_share, n_real / len(targets))
        made = EpochSampler(targets[n_real:], seed=config.seed, classes=opened.classes)
        mixed = MixedSourceSampler(real, made, batch_size=optimization.batch_size, real_share=share, num_samples=n_real)
    batches = TrainingBatches(
        real,
        mixed,
        batch_size=optimization.batch_size,
        epochs=optimization.epochs,
        updates=optimization.updates,
        real_only_last=mixing.real_only_last if mixed is not None else 0.0,
    )
    smallest = min(end - begin for begin, end in batches.bounds)
    if smallest < 2 * world_size():
        raise InputError(
            f"batches of at least two images for each of {world_size()} processes, as batch norm needs",
            f"{smallest}, with --batch-size {optimization.batch_size} and {n_real} training images",
            "raise --batch-size, or use fewer processes",
        )
    if by_rule:
        _warn_of_a_late_rule(batches)
    return batches


def _warn_of_a_late_rule(batches: TrainingBatches) -> None:
    """A rule of the sampler changes between epochs, of which a short training has few."""
    schedule, length = batches.real.schedule, batches.length
    acting = sum(min(length - epoch, 1.0) for epoch in range(batches.epochs) if batches.real.factor(epoch) > 0)
    share = acting / length
    if schedule.start < 1 and share < (1 - schedule.start) / 2:
        log.warning(
            "--sampler-schedule %s acts in %.1f %% of training only: it begins with an epoch, and there are %g",
            schedule,
            100 * share,
            round(length, 2),
        )


def _worth(mixing: MixingConfig, batches: TrainingBatches) -> float:
    """κ as it is given, or by the draws and weights of synthetic images beside those of real ones."""
    if mixing.kappa != "drawn":
        return mixing.kappa
    if batches.mixed is None or batches.mixed.synthetic is None:
        return 0.0
    real, synthetic = (float(draws.sum()) for draws in batches.mixed.expected_counts())
    of_one_real = max(real, 1.0) / len(batches.real)  # an epoch may round to no real image
    return mixing.synthetic_weight * synthetic / len(batches.mixed.synthetic) / of_one_real


def _draws(batches: TrainingBatches) -> tuple[FloatArray, DrawnShares]:
    """Draws of each class in the first epoch, and their shares while the sampler's rule begins to act."""
    real, n_real = batches.real, len(batches.real)
    synthetic = np.zeros(len(real.classes))
    if batches.mixed is not None:
        synthetic = batches.mixed.expected_counts(0)[1]
        n_real -= round(float(synthetic.sum()))

    def drawn(shares: FloatArray) -> FloatArray:
        return shares * n_real + synthetic

    plain, by_rule = drawn(real.plain_shares), drawn(real.rule_shares)
    factors = np.array([real.factor(epoch) for epoch in range(batches.epochs)])
    shares = DrawnShares(
        plain / plain.sum(), by_rule / by_rule.sum(), factors, batches.n_updates, batches.updates_per_epoch
    )
    return drawn(real.expected_shares(0)), shares


def _join(
    store: ImageStore, added: ImageStore, table: ImageTable, opened: OpenData, device: torch.device
) -> ImageStore:
    if isinstance(store, ResidentStore) and isinstance(added, ResidentStore):
        return ResidentStore(torch.cat([store.images, added.images]))
    return WorkerStore(table, opened.size, workers=opened.config.workers, device=device)


def augmentation_of(data: DataConfig, size: int, method: Method) -> str:
    """The augmentation in words, "auto" resolved: of each view, separated by commas, or one for all."""
    if data.augment != "auto":
        return data.augment
    if data.data == "digits":
        return "crop"  # digits must not be mirrored
    if method.views is None:
        return "crop+flip"
    return method.views if size <= _LARGE else method.views.replace("strong", "rand")


def _views(data: DataConfig, size: int, method: Method) -> MultiView:
    """The augmentation of each view; one that is given without commas serves all of them."""
    text, n_views = augmentation_of(data, size, method), method.n_views
    if data.augment == "auto" and data.data != "digits" and method.views is not None:
        log.info("augmentation: %s, as the method's paper; --augment sets another", text)
    if "," not in text:
        text = ",".join([text] * n_views)
    views = parse_views(text, image_size=size)
    if len(views.views) != n_views:
        raise InputError(
            f"--augment for {n_views} views", f"{len(views.views)} in {text!r}", "separate views by commas"
        )
    return views
