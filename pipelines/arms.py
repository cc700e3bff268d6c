"""The arms of a pipeline: what of its config each training and each synthesis is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipelines.config import Arm, RebalanceConfig, SynthesizeConfig, TrainConfig
from pipelines.config_groups import ObjectiveConfig
from pipelines.preparation import augmentation_of
from rebalance.methods.base import Method

WITH_IMAGES: dict[Arm, str] = {
    "replay": "replay",
    "unfiltered": "unfiltered",
    "synthetic": "kept",
    "feedback": "kept",
}
"""Arms that are trained with synthetic images, or in their place replayed ones → which of them."""


def arm_config(config: RebalanceConfig, arm: Arm, seed: int, images: Path | None) -> TrainConfig:
    """One training of an arm.

    Args:
        config: Of the pipeline.
        arm: Which.
        seed: Of the training.
        images: The synthesis folder of arms with images.
    """
    return TrainConfig(
        data=config.data,
        model=config.model,
        objective=ObjectiveConfig(method="ce") if arm == "ce" else config.objective,
        optimization=config.optimization,
        synthetic=images,
        synthetic_set=WITH_IMAGES.get(arm, "kept"),  # type: ignore[arg-type]  # one of its literals
        mixing=config.mixing,
        seed=seed,
        place=config.place,
    )


def synthesis_config(config: RebalanceConfig, out: Path, features: Path | None) -> SynthesizeConfig:
    """The synthesis of a pipeline.

    Args:
        config: Of the pipeline.
        out: The folder to write.
        features: The run whose features the gates use, unless the config names one; None to train one.
    """
    return SynthesizeConfig(
        data=config.data,
        out=out,
        budget=config.budget,
        generator=config.generator,
        stable_diffusion=config.stable_diffusion,
        files=config.files,
        filter=config.filter if config.filter.features is not None else replace(config.filter, features=features),
        model=config.model,
        amp="no" if config.optimization.amp == "fp16" else config.optimization.amp,
        deterministic=config.optimization.deterministic,
        seed=config.seed,
        dry_run=config.dry_run,
        max_minutes=config.max_minutes,
        device=config.place.device,
    )


def features_run(config: RebalanceConfig, folder: Path) -> Path | None:
    """The run, trained or yet to be, whose features the gates of a pipeline in `folder` use; None to train one."""
    return folder / "arms" / "rebalanced" / f"seed-{config.seed}" if "rebalanced" in config.arms else None


def with_augmentation_of(method: Method, config: RebalanceConfig, size: int) -> RebalanceConfig:
    """The config of plain cross entropy beside `method`: where its paper has an augmentation, the first view's.

    Else the comparison would credit re-balancing with what the stronger augmentation gives.
    """
    if method.views is None or config.data.augment != "auto":
        return config
    first = augmentation_of(config.data, size, method).split(",")[0]
    return replace(config, data=replace(config.data, augment=first))
