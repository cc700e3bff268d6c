"""What of a run has the class prior in it, through its loss, its teacher or its second stage."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from pipelines import (
    DataConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    RetrainConfig,
    TrainConfig,
    retrain,
    train,
)
from rebalance.errors import InputError


def config(folder: Path, name: str, **objective: Any) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(data="digits"),
        objective=ObjectiveConfig(**objective),
        optimization=OptimizationConfig(updates=6, batch_size=32, warmup_epochs=0),
        place=PlaceConfig(device="cpu", report_to="none", output=folder, experiment=name),
    )


def test_a_prior_that_comes_through_the_teacher_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = train(config(tmp_path, "first", method="balanced_softmax")).folder
    with caplog.at_level(logging.WARNING):
        train(config(tmp_path, "alike", method="balanced_softmax", teacher=first))
        assert "pull the logits apart" not in caplog.text
        second = train(config(tmp_path, "second", method="ce", teacher=first)).folder
    assert "has the class prior in its loss (balanced_softmax), the other has not" in caplog.text
    place = PlaceConfig(device="cpu", report_to="none", output=tmp_path)
    with pytest.raises(InputError, match="balanced_softmax"):
        retrain(RetrainConfig(run=second, method="logit_adjustment", place=place))
    assert (retrain(RetrainConfig(run=second, method="tau_norm", place=place)).folder / "metrics.json").is_file()


def test_a_prior_is_handed_on_from_teacher_to_teacher_and_by_second_stages(tmp_path: Path) -> None:
    first = train(config(tmp_path, "first", method="balanced_softmax")).folder
    second = train(config(tmp_path, "second", method="ce", teacher=first)).folder
    place = PlaceConfig(device="cpu", report_to="none", output=tmp_path)
    plain = train(config(tmp_path, "plain", method="ce")).folder
    expected = {
        second: "balanced_softmax",
        plain: "",
        retrain(RetrainConfig(run=plain, method="logit_adjustment", place=place)).folder: "logit_adjustment",
        retrain(RetrainConfig(run=second, method="ncm", place=place)).folder: "",
        retrain(RetrainConfig(run=second, method="tau_norm", place=place)).folder: "balanced_softmax",
    }
    for number, (teacher, prior) in enumerate(expected.items()):
        taught = train(config(tmp_path, f"taught-{number}", method="ce", teacher=teacher))
        assert taught.metrics["teacher"]["prior"] == prior


def test_a_teacher_that_was_stopped_before_its_figures_is_refused(tmp_path: Path) -> None:
    first = train(config(tmp_path, "first", method="ce")).folder
    (first / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"a finished run; got .*first, which is not"):
        train(config(tmp_path, "second", method="ce", teacher=first))
