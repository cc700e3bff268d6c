"""The objective of a config: settings that change nothing are said, and those that cannot work are refused."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.config import TrainConfig
from pipelines.config_groups import (
    DataConfig,
    MixingConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
)
from pipelines.objective import build_objective, check_training, warn_without_synthetic
from pipelines.open_data import OpenData, open_data
from pipelines.preparation import prepare_training
from pipelines.training import train, train_in
from rebalance.errors import InputError


def config(
    data: dict[str, Any] | None = None, optimization: dict[str, Any] | None = None, **objective: Any
) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(data="digits", **(data or {})),
        model=ModelConfig(model="small_cnn"),
        objective=ObjectiveConfig(**{"method": "ce", **objective}),
        optimization=OptimizationConfig(updates=2, **(optimization or {})),
        place=PlaceConfig(device="cpu", report_to="none"),
    )


@pytest.fixture(scope="module")
def opened() -> OpenData:
    return open_data(config().data, torch.device("cpu"))


# What would change nothing


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ({"sampler_strength": 0.5}, "--sampler-strength changes nothing without --sampler-rule"),
        ({"sampler_schedule": "deferred:0.5"}, "--sampler-schedule changes nothing without --sampler-rule"),
        ({"loss_strength": 0.5}, "--loss-strength changes nothing without --loss-rule"),
        ({"class_weight": ("0=2",)}, "--class-weight changes nothing without --loss-rule or --sampler-rule custom"),
        ({"method": "cb_softmax", "cb_beta": 0.9}, "--cb-beta changes nothing without .* recipe's own is -o cb_beta"),
        (
            {"method": "supcon", "option": ("share=1",)},
            "no classification loss.*`rebalance retrain RUN --method linear`",
        ),
        ({"method": None, "loss": ("simclr",)}, "no classification loss"),
        ({"loss_rule": "inverse", "loss_schedule": "deferred:1"}, "--loss-schedule deferred:1 never starts"),
        ({"method": "weighted_ce", "option": ("strength=0",)}, "are all equal, or never act: they change nothing"),
    ],
)
def test_settings_without_effect_are_said(
    objective: dict[str, Any], words: str, opened: OpenData, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        build_objective(config(**objective), opened, opened.train.table.counts.astype(float), np.full(10, 0.1))
    assert any(re.search(words, message) for message in caplog.messages), caplog.messages


@pytest.mark.parametrize(
    "objective",
    [
        {},
        {"method": "ldam_drw"},
        {"sampler_rule": "effective-number", "cb_beta": 0.9, "sampler_strength": 0.5},
        {"loss_rule": "inverse", "loss_strength": 0.5, "loss_schedule": "deferred:0.5"},
        {"method": None, "loss": ("ldam:0.1", "supcon:0.9")},
    ],
)
def test_settings_with_effect_are_silent(
    objective: dict[str, Any], opened: OpenData, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        build_objective(config(**objective), opened, opened.train.table.counts.astype(float), np.full(10, 0.1))
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"synthetic_set": "replay"}, ["--synthetic-set"]),
        ({"mixing": MixingConfig(synthetic_weight=1, real_share=0.8)}, ["--synthetic-weight", "--real-share"]),
        ({"mixing": MixingConfig(real_only_last=0.2, kappa=0.1)}, ["--real-only-last", "--kappa"]),
        ({}, []),
        ({"synthetic": Path("made"), "synthetic_set": "replay", "mixing": MixingConfig(kappa=0.1)}, []),
    ],
)
def test_settings_of_synthetic_images_without_any_are_said(
    changes: dict[str, Any], flags: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_without_synthetic(replace(config(), **changes))
    assert caplog.messages == [f"{flag} changes nothing without --synthetic" for flag in flags]


def test_only_a_training_of_its_own_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = "--synthetic-set changes nothing without --synthetic"
    settings = replace(config(), synthetic_set="replay", place=replace(config().place, output=tmp_path))
    train_in(tmp_path / "arm", settings)
    assert words not in caplog.text
    train(settings)
    assert words in caplog.text


# What cannot work


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"loss_schedule": "deferred:0.5"}, "--loss-rule with --loss-schedule; got the schedule alone"),
        ({"rsg_start": 0.5}, "--rsg with --rsg-start; got the start alone; add --rsg"),
        ({"method": "rsg", "option": ("loss=ce",), "loss": ("ldam",)}, "-o loss=… or --loss; got both; leave out one"),
        ({"loss_rule": "custom"}, "--class-weight NAME=WEIGHT for rule custom; got none"),
        ({"method": "ce", "option": ("gamma=1",)}, "no options: ce has none; got 'gamma'"),
    ],
)
def test_a_switch_without_what_it_belongs_to_is_refused(objective: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_training(config(**objective))


@pytest.mark.parametrize("clash", [{"rsg_start": 0.5}, {"method": "rsg", "option": ("loss=ce",), "loss": ("ldam",)}])
@pytest.mark.parametrize(
    ("data", "loss", "message"),
    [
        ({}, ("ldamm",), "a loss; got 'ldamm'; did you mean 'ldam'"),
        ({"augment": "corp"}, ("ldam",), "an augmentation; got 'corp'; did you mean 'crop'"),
    ],
)
def test_a_typo_is_named_before_a_clash(
    clash: dict[str, Any], data: dict[str, Any], loss: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=r"--rsg with --rsg-start|-o loss=… or --loss"):
        check_training(config(**clash))
    with pytest.raises(InputError, match=message):
        check_training(config(data, **{**clash, "loss": loss}))


def test_half_precision_without_a_gpu_is_refused(opened: OpenData, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=r"a GPU for fp16; got the CPU, .*; use --amp bf16"):
        train_in(tmp_path / "run", config(optimization={"amp": "fp16"}), opened)
    assert not (tmp_path / "run").exists()


def test_views_of_another_number_are_refused(opened: OpenData) -> None:
    settings = config(method="bcl", data={"augment": "crop,crop"})
    with pytest.raises(InputError, match="--augment for 3 views; got 2 in 'crop,crop'"):
        prepare_training(settings, replace(opened, config=settings.data), torch.device("cpu"))


# What is refused whatever the data


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": ModelConfig(model="NONSENSE")}, "expected a backbone; got 'NONSENSE'"),
        ({"model": ModelConfig(model="small_cnn", stem="imagenet")}, "a torchvision backbone for weights"),
        ({"model": ModelConfig(model="transformers", stem="small")}, "a torchvision backbone for a stem"),
        ({"objective": ObjectiveConfig(method="paco", head="cosine")}, "paco without --head"),
        ({"data": DataConfig(data="digits", image_size=4)}, "--image-size of at least 8"),
        ({"data": DataConfig(data="digits", val_fraction=1.5)}, r"a --val-fraction in \(0, 1\)"),
        ({"data": DataConfig(data="digits", test_fraction=-1.0)}, r"a --test-fraction in \(0, 1\)"),
    ],
)
def test_what_no_data_can_mend_is_refused_before_the_folder_of_a_finished_run_is_looked_at(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("command: train\nseed: 5\n")
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match=words):
        train_in(tmp_path, replace(config(), **changes))
