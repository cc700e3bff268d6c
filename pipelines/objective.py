"""The objective of a config: the method, how its classifier is rebuilt, and whether any of it can work."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pipelines.composition import Problem, RareSpec, Switches, parse_mix
from pipelines.config import TrainConfig
from pipelines.config_files import parse_pairs
from pipelines.config_groups import MixingConfig, ObjectiveConfig
from pipelines.console import log
from pipelines.data_flags import check_data
from pipelines.distillation import check_distillation, with_teacher
from pipelines.given_flags import given_flags
from pipelines.loss_terms import check_loss, parse_loss
from pipelines.model_files import ModelDescription
from pipelines.open_data import OpenData
from pipelines.optimization import check_optimization
from pipelines.ranges import refuse_below
from pipelines.recipes import TAKES, build_method, parse_options
from rebalance.backbones import build_backbone, check_backbone, default_backbone
from rebalance.counts import FloatArray
from rebalance.data.augmentation import parse_views
from rebalance.errors import InputError
from rebalance.methods.base import Method
from rebalance.methods.composed import ComposedMethod
from rebalance.methods.weighting import DrawnShares
from rebalance.ranks import seed_everything
from rebalance.schedules import parse_schedule

_ANY_SIZE = 32  # px; names of augmentations are the same for all sizes


def check_training(config: TrainConfig) -> None:
    """Refuse settings that cannot work whatever the data, before anything is read.

    Raises:
        InputError: An unknown name, a number out of range, or switches that do not go together.
    """
    check_data(config.data)
    check_optimization(config.optimization)
    check_backbone(config.model.model, stem=config.model.stem, weights=config.model.weights)
    refuse_below(1, {"--checkpoint-updates": config.place.checkpoint_updates})
    if config.objective.head_scale is not None and not config.objective.head_scale > 0:
        raise InputError("--head-scale > 0", str(config.objective.head_scale), "leave it out for the default")
    _check_mixing(config.mixing)
    options = parse_options(config.objective.recipe, parse_pairs(config.objective.option, "-o"))
    for text in config.objective.loss:
        check_loss(parse_loss(text).name)
    if config.data.augment != "auto":
        parse_views(config.data.augment, image_size=_ANY_SIZE)
    parse_schedule(config.objective.sampler_schedule)
    check_distillation(config.objective)
    if config.objective.loss and "loss" in options:
        raise InputError("-o loss=… or --loss", "both", "leave out one: --loss replaces the other")
    if "custom" in (config.objective.sampler_rule, config.objective.loss_rule) and not config.objective.class_weight:
        raise InputError("--class-weight NAME=WEIGHT for rule custom", "none", "give a weight for every class")
    if config.objective.recipe in TAKES:
        switches(config).refuse(config.objective.recipe, *TAKES[config.objective.recipe])
    else:
        switches(config)


def build_objective(
    config: TrainConfig, opened: OpenData, effective: FloatArray, shares: DrawnShares
) -> tuple[Method, ModelDescription]:
    """The config's method on a new network, and how to rebuild its classifier.

    Args:
        config: What to train.
        opened: The data.
        effective: Effective training images of each class, for priors and margins, (C,).
        shares: Share of each class among the drawn images.

    Raises:
        InputError: An unknown name, an option out of range, or parts that do not go together.
    """
    objective, model = config.objective, config.model
    options = parse_options(objective.recipe, parse_pairs(objective.option, "-o"))
    name = default_backbone(opened.size) if model.model == "auto" else model.model
    seed_everything(config.seed)
    make = partial(build_backbone, image_size=opened.size, stem=model.stem, weights=model.weights)
    problem = Problem(make(name), effective, shares, opened.classes, switches(config), make)
    method = build_method(objective.recipe, problem, options)
    backbone = method.classifier.backbone
    mean, std = backbone.normalization or (opened.mean, opened.std)
    description = ModelDescription(
        backbone=backbone.name,
        stem=model.stem,
        head=method.classifier.head_name,
        scale=method.classifier.scale,
        image_size=opened.size,
        mean=mean,
        std=std,
        classes=opened.classes,
        train_counts=tuple(opened.train.table.counts.tolist()),
        head_options=method.classifier.head_options,
        adjusted=method.classifier.logit_bias is not None,
        backbone_options=dict(backbone.options),
        many=config.data.many,
        few=config.data.few,
    )
    taught = with_teacher(method, description, config, opened)
    _warn_if_nothing_changes(config, opened, method)
    return taught, description


def switches(config: TrainConfig) -> Switches:
    """The parts that the user puts in place of the recipe's."""
    objective = config.objective
    rare: RareSpec | Literal[True] | None = True if objective.rsg else None
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
        "custom": custom_weights(config),
    }


def custom_weights(config: TrainConfig) -> dict[str, float] | None:
    """Weights by class name, for rule custom."""
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
    for flag, needed in _without_effect(objective).items():
        log.warning("%s changes nothing without %s", flag, needed)
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
    if isinstance(method, ComposedMethod) and len(method.contrastive) == len(method.terms):
        log.warning(
            "there is no classification loss, so the figures mean nothing yet: "
            "train a classifier with `rebalance retrain RUN --method linear`"
        )


def warn_without_synthetic(config: TrainConfig) -> None:
    """Say which settings of synthetic images change nothing; not for the arms of a pipeline, which share theirs."""
    if config.synthetic is not None:
        return
    for flag in (*given_flags(config.mixing), *given_flags(config, ("synthetic_set",))):
        log.warning("%s changes nothing without --synthetic", flag)


def _without_effect(objective: ObjectiveConfig) -> dict[str, str]:
    """Flags that are given without the one that they belong to, with that one."""
    rules = (objective.sampler_rule, objective.loss_rule)
    found = {
        "--sampler-strength": (objective.sampler_strength != 1 and rules[0] == "none", "--sampler-rule"),
        "--sampler-schedule": (objective.sampler_schedule != "none" and rules[0] == "none", "--sampler-rule"),
        "--loss-strength": (objective.loss_strength != 1 and rules[1] is None, "--loss-rule"),
        "--cb-beta": (
            objective.cb_beta is not None and "effective-number" not in rules,
            "--loss-rule or --sampler-rule effective-number; a recipe's own is -o cb_beta=…",
        ),
        "--class-weight": (objective.class_weight and "custom" not in rules, "--loss-rule or --sampler-rule custom"),
    }
    return {flag: needed for flag, (stray, needed) in found.items() if stray}


def _check_mixing(mixing: MixingConfig) -> None:
    values = {
        "--synthetic-weight": (mixing.synthetic_weight, 0, 10),
        "--real-share": (mixing.real_share, 0, 1),
        "--real-only-last": (mixing.real_only_last, 0, 1),
        "--kappa": (0.0 if mixing.kappa == "drawn" else mixing.kappa, 0, 1),
    }
    for flag, (value, low, high) in values.items():
        if not low <= value <= high:
            raise InputError(f"{flag} in [{low}, {high}]", str(value), "leave it out for the default")
