"""A finished run as teacher: what it is given, what of it is checked, and trainings beside it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cli import main
from pipelines import (
    DataConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    RebalanceConfig,
    TrainConfig,
    load_model,
    rebalance_and_train,
    train,
)
from pipelines.distillation import Teacher
from pipelines.history import History
from pipelines.loop import Step
from pipelines.objective import build_objective, check_training
from pipelines.open_data import OpenData, open_data
from pipelines.report_data import read_report_data
from pipelines.training import TrainResult
from rebalance.data.augmentation import normalize
from rebalance.errors import InputError
from rebalance.files import sha256
from rebalance.methods.distilled import DistilledMethod

Config = Callable[..., TrainConfig]


def config(folder: Path, name: str = "student", data: dict[str, Any] | None = None, **objective: Any) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(**{"data": "digits", **(data or {})}),
        objective=ObjectiveConfig(**objective),
        optimization=OptimizationConfig(updates=6, batch_size=32, warmup_epochs=0),
        place=PlaceConfig(device="cpu", report_to="none", output=folder, experiment=name, checkpoint_updates=1),
    )


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits; not to be changed."""
    return train(config(tmp_path_factory.mktemp("teacher"), method="ce")).folder


@pytest.fixture(scope="module")
def opened() -> OpenData:
    """The digits that it was trained on."""
    return open_data(DataConfig(data="digits"), torch.device("cpu"))


def build(opened: OpenData, folder: Path, **objective: Any) -> DistilledMethod:
    counts = opened.train.table.counts.astype(float)
    method, _ = build_objective(config(folder, **objective), opened, counts, counts / counts.sum())
    assert isinstance(method, DistilledMethod)
    return method


# What it is given


def test_the_teacher_undoes_the_normalisation_of_its_student(teacher: Path, opened: OpenData) -> None:
    trained = load_model(teacher)
    other = replace(trained.description, mean=(0.1, 0.5, 0.7), std=(0.2, 0.3, 0.4))
    pixels = opened.train.store.images[:8]  # type: ignore[attr-defined]
    given = normalize(pixels, torch.tensor(other.mean), torch.tensor(other.std))
    with torch.no_grad():
        expected = trained.classifier(normalize(pixels, trained.mean, trained.std))
        torch.testing.assert_close(Teacher(trained, other)(given), expected, rtol=1e-4, atol=1e-4)


def test_its_settings_and_its_weights_reach_the_loss(teacher: Path, opened: OpenData, tmp_path: Path) -> None:
    method = build(opened, tmp_path, teacher=teacher, teacher_share=0.2, teacher_temperature=5.0, teacher_power=0.7)
    assert (method.share, method.distillation.temperature, method.distillation.power) == (0.2, 5.0, 0.7)
    assert method.objective.mix is not None  # the default recipe
    assert isinstance(method.teacher, Teacher)
    weights = load_file(teacher / "model" / "weights.safetensors")
    state = method.teacher.classifier.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in state.items())


# Trainings


def test_what_is_left_is_the_student_alone(teacher: Path, tmp_path: Path) -> None:
    plain = train(config(tmp_path, "plain"))
    taught = train(config(tmp_path, "taught", teacher=teacher))
    assert "train_distillation" in (taught.folder / "history.csv").read_text()
    files = [one.folder / "model" / "weights.safetensors" for one in (plain, taught)]
    assert load_file(files[0]).keys() == load_file(files[1]).keys()
    assert files[0].read_bytes() != files[1].read_bytes()


def test_a_student_of_its_teacher_alone_comes_to_agree_with_it(tmp_path: Path) -> None:
    def longer(settings: TrainConfig) -> TrainResult:
        return train(replace(settings, optimization=OptimizationConfig(updates=120, batch_size=64, warmup_epochs=1)))

    first = longer(config(tmp_path, "first", method="balanced_softmax"))
    second = longer(config(tmp_path, "second", method="ce", teacher=first.folder, teacher_share=1.0))
    digits = open_data(DataConfig(data="digits"), torch.device("cpu")).tables["test"].table.images[:200]
    told = [load_model(one.folder).predict(list(digits)) for one in (first, second)]
    assert sum(a == b for a, b in zip(*told, strict=True)) >= 170  # 0.92 of them; by chance one in ten


@pytest.mark.parametrize(
    "optimization", [{}, {"sam": 0.1, "grad_accum_steps": 2, "model_ema": 0.9}], ids=["plain", "all together"]
)
def test_a_killed_training_goes_on_to_the_same_weights(
    optimization: dict[str, Any], teacher: Path, tmp_path: Path
) -> None:
    add = History.add

    def add_or_stop(self: History, step: Step) -> None:
        if step.update == 4:
            raise KeyboardInterrupt
        add(self, step)

    def settings(name: str) -> TrainConfig:
        given = config(tmp_path, name, teacher=teacher)
        return replace(given, optimization=replace(given.optimization, **optimization))

    whole = train(settings("whole"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(History, "add", add_or_stop)
        with pytest.raises(KeyboardInterrupt):
            train(settings("broken"))
    resumed = train(settings("broken"))
    assert resumed.metrics == whole.metrics
    models = [one.folder / "model" / "weights.safetensors" for one in (whole, resumed)]
    assert models[0].read_bytes() == models[1].read_bytes()


@pytest.mark.parametrize("amp", ["no", "bf16"])
def test_synthetic_images_and_half_precision_go_with_it(
    amp: Any, teacher: Path, opened: OpenData, tmp_path: Path
) -> None:
    (tmp_path / "made" / "9").mkdir(parents=True)
    for i, pixels in enumerate(opened.tables["test"].table.images[:3]):
        Image.fromarray(pixels).save(tmp_path / "made" / "9" / f"{i}.png")
    given = config(tmp_path, teacher=teacher)
    given = replace(given, synthetic=tmp_path / "made", optimization=replace(given.optimization, amp=amp))
    assert sum(train(given).metrics["synthetic_counts"]) == 3


# What is left of it in the run folder


def test_the_run_says_who_taught_it_and_goes_on_with_nobody_else(teacher: Path, tmp_path: Path) -> None:
    copy = tmp_path / "teacher"
    shutil.copytree(teacher, copy)
    given = config(tmp_path, teacher=copy)
    metrics = train(given).metrics
    weights = sha256(teacher / "model" / "weights.safetensors")
    assert metrics["teacher"] == {"run": str(copy), "weights": weights, "prior": ""}
    other = train(config(tmp_path, "other", method="focal")).folder
    shutil.copy(other / "model" / "weights.safetensors", copy / "model" / "weights.safetensors")
    (tmp_path / "train" / "student" / "metrics.json").unlink()  # as if it had been stopped
    with pytest.raises(InputError, match="others: teacher differ"):
        train(given)


def test_seeds_with_teachers_of_their_own_are_one_arm_of_the_report(tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        first = train(replace(config(tmp_path, f"first-{seed}"), seed=seed)).folder
        runs.append(train(replace(config(tmp_path, f"second-{seed}", teacher=first), seed=seed)).folder)
    odd = train(config(tmp_path, "odd", teacher=train(config(tmp_path, "focal", method="focal")).folder)).folder
    arms = read_report_data([*runs, odd]).metrics
    assert {name: len(seeds) for name, seeds in arms.items()} == {"second-0": 2, "odd": 1}


# What is refused, before anything is written


def test_a_teacher_of_other_data_is_refused_unless_its_model_alone_is_given(
    teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = {"imbalance_factor": 10}
    with pytest.raises(InputError, match=r"like this; got .*on others \(imbalance_factor: None → 10\)"):
        train(config(tmp_path, data=elsewhere, teacher=teacher))
    assert not list(tmp_path.iterdir())
    with caplog.at_level(logging.WARNING):
        train(config(tmp_path, data=elsewhere, teacher=teacher / "model"))
    assert "nobody knows what" in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "paco"}, "a composed method for --teacher; got paco, which has parts of its own"),
        ({"data": {"image_size": 16}}, "a teacher with an image size of 16; got .* with 8"),
        ({"loss": ("supcon",)}, "a classification loss beside the teacher; got supcon"),
    ],
)
def test_what_cannot_be_taught_says_why(given: dict[str, Any], message: str, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train(config(tmp_path, **{"teacher": teacher, **given}))
    assert not list(tmp_path.iterdir())


def test_a_teacher_of_other_classes_is_refused(teacher: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a teacher with classes of .*; got .* with 0, 1, 2"):
        train(config(tmp_path, data={"data": str(photos), "image_size": 8}, teacher=teacher))


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"teacher_share": 0.2}, "--teacher RUN with --teacher-share; got no teacher"),
        ({"teacher_power": 1.0}, "--teacher RUN with --teacher-power; got no teacher"),
        ({"teacher_temperature": 1.0}, "--teacher RUN with --teacher-temperature; got no teacher"),
        ({"teacher": Path("a"), "teacher_share": 0.0}, r"--teacher-share in \(0, 1\]; got 0"),
        ({"teacher": Path("a"), "teacher_temperature": float("inf")}, r"--teacher-temperature in \(0, 100\]; got inf"),
        ({"teacher": Path("a"), "teacher_power": -1.0}, r"--teacher-power in \(0, 100\]; got -1"),
    ],
)
def test_settings_of_a_teacher_are_checked_first(objective: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        check_training(config(tmp_path, **objective))


def test_a_teacher_must_be_there_until_the_training_is_finished(teacher: Path, tmp_path: Path) -> None:
    given = config(tmp_path, teacher=tmp_path / "teacher")
    with pytest.raises(InputError, match=r"a finished run with a model; got .*teacher, which has none"):
        train(given)
    assert not (tmp_path / "train").exists()
    shutil.copytree(teacher, tmp_path / "teacher")
    metrics = train(given).metrics
    shutil.rmtree(tmp_path / "teacher")
    assert train(given).metrics == metrics


def test_a_pipeline_teaches_as_its_model_and_is_checked_as_that(tmp_path: Path) -> None:
    given = config(tmp_path, "whole")
    arms = RebalanceConfig(
        data=given.data, optimization=given.optimization, place=given.place, arms=("ce", "rebalanced"), seeds=1
    )
    whole = rebalance_and_train(arms).folder
    facts = train(config(tmp_path, teacher=whole)).metrics["teacher"]
    assert facts["prior"] == "balanced_mixup"
    with pytest.raises(InputError, match="trained on others"):
        train(config(tmp_path, "else", data={"imbalance_factor": 10}, teacher=whole))


def test_a_run_is_not_its_own_teacher(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["train", "digits", "--updates", "4", "--report-to", "none", "--output", str(tmp_path)]
    assert main(words) == 0
    folder = tmp_path / "train" / "digits-balanced_mixup"
    weights = (folder / "model" / "weights.safetensors").read_bytes()
    for teacher in (folder, folder / "model"):
        named = ["--teacher", str(teacher), "--experiment", "digits-balanced_mixup"]
        assert main([*words, *named, "--no-resume"]) == 2
        assert "a run folder of its own" in " ".join(capfd.readouterr().err.split())
    assert (folder / "model" / "weights.safetensors").read_bytes() == weights
    assert main([*words, "--teacher", str(folder), "--teacher-share", "0.7"]) == 0
    assert (tmp_path / "train" / "digits-balanced_mixup-taught" / "metrics.json").is_file()


def test_the_pipeline_compares_independent_trainings(
    teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "digits", "--teacher", str(teacher), "--output", str(tmp_path / "runs")]) == 2
    assert "expected trainings that are independent of one another" in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "runs").exists()
