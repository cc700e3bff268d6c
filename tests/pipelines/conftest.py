"""Runs that several tests look at, and settings of quick ones: syntheses, first stages to retrain, every recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines import (
    BudgetConfig,
    DataConfig,
    FilterConfig,
    GeneratorConfig,
    ImageFilesConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    RetrainConfig,
    StableDiffusionConfig,
    SynthesizeConfig,
    TrainConfig,
    synthesize,
    train,
)
from pipelines.open_data import OpenData, open_data
from rebalance.data.digits import read_digits
from rebalance.data.table import ImageTable, Splits

Config = Callable[..., SynthesizeConfig]
TINY_SD = Path(__file__).parents[1] / "assets" / "tiny_sd"
COUNTS = {"zero": 30, "four": 8, "seven": 2}
WANTED = {"four": 7, "seven": 6}
MODES = ("text", "image", "adapted")
OBJECTIVES: dict[str, dict[str, Any]] = {
    **{name: {"option": ("defer_until=0.5",)} for name in ("ce_drw", "ldam_drw")},
    **{name: {"option": ("defer_until=0.5", "until=0.75")} for name in ("mixup_drw", "remix_drw")},
    "balanced_mixup": {"option": ("until=0.75",)},
    "rsg": {"option": ("start=0.5", "defer_until=0.5", "n_centers=3")},
    **{name: {"option": ("queue=24", "projection=8")} for name in ("paco", "gpaco")},
    "bcl": {"option": ("projection=8", "hidden=16")},
    "autoencoder": {"option": ("stage=separate", "pretraining=0.5", "encoder=small_cnn")},
    "composed": {
        "loss": ("ldam:0.1", "supcon:0.9"),
        "head": "cosine",
        "loss_rule": "inverse",
        "rsg": True,
        "rsg_start": 0.5,
    },
}
"""Of recipes that have something to set in a short training; composed is a cosine head, 0.1 LDAM with inverse-frequency
weights, 0.9 SupCon, rare features."""


# Syntheses


@pytest.fixture(scope="session")
def tiny_synthesis(photos: Path) -> Config:
    """Settings of a synthesis of `photos` in seconds: 6, 9 and 12 images of its rarer classes."""

    def configure(out: Path, **changes: Any) -> SynthesizeConfig:
        settings: dict[str, Any] = {
            "data": DataConfig(data=str(photos)),
            "budget": BudgetConfig(budget="explicit", count=("two words=6", "f.o.u.r=9", "tail=12")),
            "generator": GeneratorConfig(
                generator_updates=6, generator_batch_size=8, generator_channels=(8, 16), steps=2, sampling_batch=8
            ),
            "filter": FilterConfig(feature_updates=6, skip_gate=("distance",)),
            "device": "cpu",
        }
        return SynthesizeConfig(out=out, **{**settings, **changes})

    return configure


@pytest.fixture(scope="session")
def digit_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of real digits, 16 px: 30 zeros, 8 fours, 2 sevens; not to be changed."""
    root, table = tmp_path_factory.mktemp("digits"), read_digits().train
    for name, n in COUNTS.items():
        (root / name).mkdir()
        rows = np.flatnonzero(table.targets == {"zero": 0, "four": 4, "seven": 7}[name])[:n]
        for row in rows:
            Image.fromarray(table.images[row]).resize((16, 16)).save(root / name / f"{row}.png")
    return root


@pytest.fixture(scope="session")
def sd_features(digit_folders: Path) -> Path:
    """A classifier of `digit_folders` that hardly learnt, for the gates."""
    training = TrainConfig(
        data=DataConfig(data=str(digit_folders)),
        objective=ObjectiveConfig(method="ce"),
        optimization=OptimizationConfig(updates=6),
        place=PlaceConfig(output=digit_folders.parent / "digits-features", device="cpu", report_to="none"),
    )
    return train(training).folder


@pytest.fixture(scope="session")
def sd_config(digit_folders: Path, sd_features: Path) -> Config:
    """Settings that are quick, of 7 fours and 6 sevens; names of any of the groups' fields."""

    def configure(out: Path, mode: str = "text", *, data: Path = digit_folders, **changes: Any) -> SynthesizeConfig:
        groups: dict[str, tuple[type, dict[str, Any]]] = {
            "budget": (BudgetConfig, {"budget": "explicit", "count": tuple(f"{k}={n}" for k, n in WANTED.items())}),
            "generator": (GeneratorConfig, {"generator": "stable-diffusion", "steps": 4, "sampling_batch": 4}),
            "stable_diffusion": (StableDiffusionConfig, {"checkpoint": str(TINY_SD), "mode": mode}),
            "filter": (FilterConfig, {"features": sd_features, "skip_gate": ("distance", "third-class")}),
            "files": (ImageFilesConfig, {}),
        }
        if mode == "adapted":
            changes = {"generator_updates": 6, "generator_batch_size": 4, "generator_lr": 1e-2, **changes}
        settings = {}
        for name, (cls, values) in groups.items():
            own = {key: changes.pop(key) for key in list(changes) if key in cls.__dataclass_fields__}
            settings[name] = cls(**values | own)
        return SynthesizeConfig(data=DataConfig(data=str(data)), out=out, device="cpu", **settings, **changes)

    return configure


@pytest.fixture(scope="session")
def sd_finished(sd_config: Config, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished synthesis of each mode; not to be changed."""
    root = tmp_path_factory.mktemp("synthesis")
    for mode in MODES:
        synthesize(sd_config(root / mode, mode))
    return {mode: root / mode for mode in MODES}


# First stages


@pytest.fixture(scope="session")
def train_first_stage() -> Callable[..., Path]:
    """Train on digits; the folder of the run."""

    def first(folder: Path, method: str = "ce", updates: int = 20, **settings: Any) -> Path:
        objective = {"method": method, **settings.pop("objective", {})}
        config = TrainConfig(
            data=DataConfig(data="digits", **settings),
            model=ModelConfig(model="small_cnn"),
            objective=ObjectiveConfig(**objective),
            optimization=OptimizationConfig(updates=updates, batch_size=64),
            place=PlaceConfig(device="cpu", report_to="none", output=folder, experiment=f"first-{method}"),
        )
        return train(config).folder

    return first


@pytest.fixture(scope="session")
def plain_stage(train_first_stage: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cross entropy without a validation split; not to be changed."""
    return train_first_stage(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def validated_stage(train_first_stage: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cross entropy with a validation split; not to be changed."""
    return train_first_stage(tmp_path_factory.mktemp("validated"), imbalance_factor=4, val_fraction=0.3)


@pytest.fixture(scope="session")
def retrain_config() -> Callable[..., RetrainConfig]:
    """Settings of a second stage of six updates."""

    def configure(run: Path, method: str, folder: Path, *options: str, **changes: Any) -> RetrainConfig:
        optimization = OptimizationConfig(updates=6, batch_size=64, warmup_epochs=0, **changes)
        place = PlaceConfig(device="cpu", report_to="none", output=folder, checkpoint_updates=2)
        return RetrainConfig(run=run, method=method, option=options, optimization=optimization, place=place)

    return configure


# Recipes


@pytest.fixture(scope="session")
def recipe_config() -> Callable[..., TrainConfig]:
    """Settings of a recipe on `recipe_data`, by its name: four updates, in which every phase of it occurs."""

    def configure(name: str, **changes: Any) -> TrainConfig:
        optimization = {
            "updates": 4,
            "batch_size": 16,
            "warmup_epochs": 0.0,
            "channels_last": False,
            **changes.pop("optimization", {}),
        }
        settings: dict[str, Any] = {
            "data": DataConfig(data="made", image_size=8, augment="crop"),
            "model": ModelConfig(model="small_cnn"),
            "objective": ObjectiveConfig(method=name, **OBJECTIVES.get(name, {})),
            "optimization": OptimizationConfig(**optimization),
            "place": PlaceConfig(device="cpu", report_to="none", checkpoint_updates=1),
        }
        return TrainConfig(**{**settings, **changes})

    return configure


@pytest.fixture(scope="session")
def recipe_data(recipe_config: Callable[..., TrainConfig]) -> OpenData:
    """Noise of 8 px in four classes of 24, 12, 6 and 4 images, with a test split; not to be changed."""

    def made(seed: int, counts: tuple[int, ...]) -> ImageTable:
        targets = np.repeat(np.arange(len(counts)), counts)
        images = np.random.default_rng(seed).integers(0, 256, (len(targets), 8, 8, 3), dtype=np.uint8)
        return ImageTable(images, targets, tuple("abcd"))

    splits = Splits(made(0, (24, 12, 6, 4)), test=made(1, (3, 3, 3, 3)))
    return open_data(recipe_config("ce").data, torch.device("cpu"), splits)
