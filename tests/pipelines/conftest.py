"""Runs that several tests look at: syntheses with a small but whole Stable Diffusion, first stages to retrain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
from rebalance.data.digits import read_digits

Config = Callable[..., SynthesizeConfig]
TINY_SD = Path(__file__).parents[1] / "assets" / "tiny_sd"
COUNTS = {"zero": 30, "four": 8, "seven": 2}
WANTED = {"four": 7, "seven": 6}
MODES = ("text", "image", "adapted")


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
