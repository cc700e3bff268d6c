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
from pipelines.training import TrainResult
from rebalance.data.augmentation import normalize
from rebalance.errors import InputError
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


def test_share_and_temperature_reach_the_loss(teacher: Path, opened: OpenData, tmp_path: Path) -> None:
    method = build(opened, tmp_path, teacher=teacher, teacher_share=0.2, teacher_temperature=5.0)
    assert (method.share, method.distillation.temperature) == (0.2, 5.0)
    assert method.objective.mix is not None  # the default recipe
    weights = load_file(teacher / "model" / "weights.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in load_model(teacher).classifier.state_dict().items())
    state = {name: value for name, value in method.teacher.state_dict().items() if name.startswith("classifier.")}
    assert all(torch.equal(value, weights[name.removeprefix("classifier.")]) for name, value in state.items())


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


def test_in_the_pipeline_the_method_is_taught_and_plain_cross_entropy_is_not(teacher: Path, tmp_path: Path) -> None:
    given = config(tmp_path, "compared", teacher=teacher)
    pipeline = RebalanceConfig(
        data=given.data,
        objective=given.objective,
        optimization=given.optimization,
        place=given.place,
        arms=("ce", "rebalanced"),
        seeds=1,
    )
    folder = rebalance_and_train(pipeline).folder
    taught = {file.parts[-3]: "distillation" in file.read_text() for file in folder.rglob("history.csv")}
    assert taught == {"ce": False, "rebalanced": True}


# What is refused, before anything is written


def test_a_teacher_of_other_data_is_refused_unless_its_model_alone_is_given(
    teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = {"imbalance_factor": 10}
    with pytest.raises(InputError, match=r"trained on these data, cut and split like this; got .* on others"):
        train(config(tmp_path, data=elsewhere, teacher=teacher))
    assert not list(tmp_path.iterdir())
    with caplog.at_level(logging.WARNING):
        train(config(tmp_path, data=elsewhere, teacher=teacher / "model"))
    assert "nobody knows what" in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "paco"}, "a composed method for --teacher; got paco, which has parts of its own"),
        ({"teacher": Path("nowhere")}, "a finished run with a model; got nowhere"),
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
        ({"teacher_temperature": 1.0}, "--teacher RUN with --teacher-temperature; got no teacher"),
        ({"teacher": Path("a"), "teacher_share": 0.0}, r"--teacher-share in \(0, 1\]; got 0"),
        ({"teacher": Path("a"), "teacher_temperature": -1.0}, "--teacher-temperature > 0; got -1"),
    ],
)
def test_settings_of_a_teacher_are_checked_first(objective: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        check_training(config(tmp_path, **objective))


def test_folds_and_a_teacher_that_has_seen_them_do_not_go_together(
    teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "digits", "--tune-folds", "2", "--teacher", str(teacher), "--output", str(tmp_path / "runs")]
    assert main(words) == 2
    assert "the teacher has seen every fold" in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


def test_the_copied_run_is_as_good_as_the_run(teacher: Path, tmp_path: Path) -> None:
    shutil.copytree(teacher, tmp_path / "copy")
    words = ["train", "digits", "--updates", "4", "--report-to", "none", "--output", str(tmp_path / "runs")]
    assert main([*words, "--teacher", str(tmp_path / "copy"), "--teacher-share", "0.7"]) == 0
    assert (tmp_path / "runs" / "train" / "digits-balanced_mixup" / "metrics.json").is_file()
