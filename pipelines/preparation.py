"""From a config to everything that a training is made of: decoded data, samplers, method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pipelines.batches import TrainingBatches
from pipelines.composition import Problem, RareSpec, Switches, parse_mix
from pipelines.config import TrainConfig
from pipelines.config_files import parse_pairs
from pipelines.config_groups import DataConfig, MixingConfig
from pipelines.console import log
from pipelines.loading import DecodedTable, fingerprint, image_size, load_splits, open_splits
from pipelines.loop import TrainingData
from pipelines.loss_terms import parse_loss
from pipelines.model_files import ModelDescription
from pipelines.recipes import build_method, parse_options
from pipelines.synthetic_images import open_synthetic
from rebalance.backbones import build_backbone, default_backbone
from rebalance.counts import FloatArray, IntArray, check_counts
from rebalance.data.augmentation import MultiView, parse_views
from rebalance.data.store import ImageStore, ResidentStore, WorkerStore, pixel_statistics
from rebalance.data.table import Splits, concatenate
from rebalance.errors import InputError
from rebalance.methods.base import Method
from rebalance.methods.composed import ComposedMethod
from rebalance.ranks import seed_everything, split_batches
from rebalance.samplers import EpochSampler, MixedSourceSampler
from rebalance.schedules import parse_schedule

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class OpenData:
    """A data set, decoded.

    Args:
        config: What was asked for.
        splits: The tables, before unreadable images were left out.
        size: Height and width, px.
        tables: Decoded tables by split.
        mean: Of the training pixels in [0, 1], (3,).
        std: Likewise.
        fingerprint: Hash of which images are in which class of which split.
    """

    config: DataConfig
    splits: Splits
    size: int
    tables: dict[str, DecodedTable]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    @property
    def train(self) -> DecodedTable:
        """The training images."""
        return self.tables["train"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, by id."""
        return self.splits.classes


def open_data(config: DataConfig, device: torch.device, splits: Splits | None = None) -> OpenData:
    """Load and decode what `config` names.

    Raises:
        InputError: Anything wrong with the data.
    """
    splits = splits if splits is not None else load_splits(config)
    for note in splits.notes:
        log.info("%s", note)
    size = image_size(config, splits.train)
    tables = open_splits(splits, size, config, device, ("train", "val", "test"))
    check_counts(tables["train"].table.counts, splits.classes)
    mean, std = pixel_statistics(tables["train"].store, len(tables["train"].table))
    return OpenData(config, splits, size, tables, tuple(mean), tuple(std), fingerprint(splits))


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
    """

    method: Method
    data: TrainingData
    batches: TrainingBatches
    description: ModelDescription
    counts: tuple[IntArray, IntArray]
    expected: FloatArray


def prepare_training(config: TrainConfig, opened: OpenData, device: torch.device) -> Prepared:
    """Build method, data and samplers; nothing is written.

    Raises:
        InputError: Settings that do not fit the data or one another.
    """
    _check_mixing(config.mixing)
    table, store = opened.train.table, opened.train.store
    n_real = len(table)
    real_counts = table.counts
    added = open_synthetic(config, opened.config, table, opened.size, device)
    if added is not None:
        table = concatenate(table, added.table)
        store = _join(store, added.store, table, opened, device)
    synthetic_counts = table.counts - real_counts
    effective = real_counts + config.mixing.kappa * synthetic_counts
    batches, expected = _build_batches(config, opened, table.targets, n_real)
    method, description = _build_method(config, opened, effective, expected / expected.sum())
    augment = _views(opened, method.n_views)
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
    return Prepared(method, data, batches, description, (real_counts, synthetic_counts), expected)


def _build_batches(
    config: TrainConfig, opened: OpenData, targets: np.ndarray, n_real: int
) -> tuple[TrainingBatches, FloatArray]:
    objective, optimization, mixing = config.objective, config.optimization, config.mixing
    epochs = optimization.epochs
    if optimization.updates is not None:
        epochs = -(-optimization.updates // len(split_batches(n_real, optimization.batch_size)))
    real = EpochSampler(
        targets[:n_real],
        rule=objective.sampler_rule,
        exponent=objective.sampler_strength,
        schedule=parse_schedule(objective.sampler_schedule),
        epochs=epochs,
        seed=config.seed,
        cb_beta="auto" if objective.cb_beta is None else objective.cb_beta,
        custom=_custom_weights(config),
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
        epochs=epochs,
        updates=optimization.updates,
        real_only_last=mixing.real_only_last if mixed is not None else 0.0,
    )
    if mixed is None:
        return batches, real.expected_counts(0)
    drawn_real, drawn_synthetic = mixed.expected_counts(0)
    return batches, drawn_real + drawn_synthetic


def _build_method(
    config: TrainConfig, opened: OpenData, effective: FloatArray, shares: FloatArray
) -> tuple[Method, ModelDescription]:
    objective, model = config.objective, config.model
    options = parse_options(objective.recipe, parse_pairs(objective.option, "-o"))
    name = default_backbone(opened.size) if model.model == "auto" else model.model
    seed_everything(config.seed)
    backbone = build_backbone(name, image_size=opened.size, stem=model.stem, weights=model.weights)
    problem = Problem(backbone, effective, shares, opened.classes, _switches(config))
    method = build_method(objective.recipe, problem, options)
    pretrained = model.weights is not None
    description = ModelDescription(
        backbone=name,
        stem=model.stem,
        head=method.classifier.head_name,
        scale=method.classifier.scale,
        image_size=opened.size,
        mean=_IMAGENET_MEAN if pretrained else opened.mean,
        std=_IMAGENET_STD if pretrained else opened.std,
        classes=opened.classes,
        train_counts=tuple(opened.train.table.counts.tolist()),
    )
    _warn_if_nothing_changes(config, opened, method)
    return method, description


def _switches(config: TrainConfig) -> Switches:
    objective = config.objective
    rare: RareSpec | bool | None = objective.rsg
    if objective.rsg_start is not None:
        if not objective.rsg:
            raise InputError("--rsg with --rsg-start", "the start alone", "add --rsg")
        rare = RareSpec(objective.rsg_start)
    return Switches(
        losses=tuple(parse_loss(text) for text in objective.loss) or None,
        weighting=_user_weighting(config),
        head=objective.head,
        scale=objective.head_scale,
        mix=None if objective.mix is None else parse_mix(objective.mix),
        rare=rare,
    )


def _user_weighting(config: TrainConfig) -> dict[str, object] | None:
    objective = config.objective
    if objective.loss_rule is None:
        if objective.loss_schedule is not None:
            raise InputError(
                "--loss-rule with --loss-schedule", "the schedule alone", "add --loss-rule effective-number, say"
            )
        return None
    return {
        "rule": objective.loss_rule,
        "strength": objective.loss_strength,
        "schedule": parse_schedule(objective.loss_schedule or "none"),
        "cb_beta": "auto" if objective.cb_beta is None else objective.cb_beta,
        "custom": _custom_weights(config),
    }


def _custom_weights(config: TrainConfig) -> dict[str, float] | None:
    pairs = parse_pairs(config.objective.class_weight, "--class-weight")
    try:
        return {name: float(value) for name, value in pairs.items()} or None
    except ValueError as error:
        raise InputError(
            "--class-weight NAME=NUMBER", str(error), "write for example --class-weight cat=2.5"
        ) from error


def _warn_if_nothing_changes(config: TrainConfig, opened: OpenData, method: Method) -> None:
    """A chosen method that does nothing is the worst bug: say so."""
    objective = config.objective
    counts = opened.train.table.counts
    if len(set(counts.tolist())) == 1 and objective.recipe != "ce":
        log.warning("every class has %d images: re-balancing changes nothing here", counts[0])
    if objective.sampler_rule != "none" and objective.sampler_strength == 0:
        log.warning("--sampler-strength 0 leaves the sampler as it is without --sampler-rule")
    for flag, text in (
        ("--sampler-schedule", objective.sampler_schedule),
        ("--loss-schedule", objective.loss_schedule),
    ):
        schedule = parse_schedule(text or "none")
        if schedule.kind == "deferred" and schedule.start >= 1:
            log.warning("%s %s never starts", flag, text)
    weighting = method.weighting if isinstance(method, ComposedMethod) else None
    if weighting is not None and weighting.rule != "none" and weighting.changes_nothing:
        log.warning("the class weights of rule %s are all equal, or never act: they change nothing", weighting.rule)


def _join(store: ImageStore, added: ImageStore, table: object, opened: OpenData, device: torch.device) -> ImageStore:
    if isinstance(store, ResidentStore) and isinstance(added, ResidentStore):
        return ResidentStore(torch.cat([store.images, added.images]))
    return WorkerStore(table, opened.size, workers=opened.config.workers, device=device)  # type: ignore[arg-type]


def _views(opened: OpenData, n_views: int) -> MultiView:
    """The augmentation of each view; one that is given without commas serves all of them."""
    text = opened.config.augment
    if text == "auto":
        text = "crop" if opened.config.data == "digits" else "crop+flip"  # digits must not be mirrored
    if "," not in text:
        text = ",".join([text] * n_views)
    views = parse_views(text, image_size=opened.size)
    if len(views.views) != n_views:
        raise InputError(
            f"--augment for {n_views} views", f"{len(views.views)} in {text!r}", "separate views by commas"
        )
    return views


def _check_mixing(mixing: MixingConfig) -> None:
    values = {
        "--synthetic-weight": (mixing.synthetic_weight, 0, 10),
        "--real-share": (mixing.real_share, 0, 1),
        "--real-only-last": (mixing.real_only_last, 0, 1),
        "--kappa": (mixing.kappa, 0, 1),
    }
    for flag, (value, low, high) in values.items():
        if not low <= value <= high:
            raise InputError(f"{flag} in [{low}, {high}]", str(value), "leave it out for the default")
