"""How strong a second stage is: chosen on the validation split, or as the paper says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines import DataConfig, RetrainConfig, retrain, retraining
from pipelines.loading import load_splits
from pipelines.strengths import STRENGTHS, choose_strength
from rebalance.errors import InputError


@pytest.mark.parametrize("method", ["tau_norm", "logit_adjustment"])
def test_tau_is_chosen_on_the_validation_split_alone(
    retrain_config: Callable[..., RetrainConfig],
    method: str,
    validated_stage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []
    predict = retraining.predict_rows

    def remember(module: Any, decoded: Any, *rest: Any) -> Any:
        read.append(len(decoded.table))
        return predict(module, decoded, *rest)

    monkeypatch.setattr(retraining, "predict_rows", remember)
    metrics = retrain(retrain_config(validated_stage, method, tmp_path)).metrics
    val = load_splits(DataConfig(data="digits", imbalance_factor=4, val_fraction=0.3)).val
    assert val is not None
    assert read == [len(val)]
    assert metrics["tau_by"] == "balanced accuracy on the validation split"
    assert [float(tau) for tau in metrics["tried"]] == list(STRENGTHS)
    assert metrics["tried"][f"{metrics['tau']:g}"] == max(metrics["tried"].values())
    assert metrics["val"]["balanced_accuracy"] == pytest.approx(max(metrics["tried"].values()))


def test_without_a_validation_split_tau_is_the_papers(
    retrain_config: Callable[..., RetrainConfig], plain_stage: Path, tmp_path: Path
) -> None:
    metrics = retrain(retrain_config(plain_stage, "tau_norm", tmp_path)).metrics
    assert (metrics["tau"], metrics["tau_by"]) == (1.0, "default: there is no validation split")


def test_of_equally_good_strengths_that_next_to_one_is_taken() -> None:
    targets = torch.tensor([0, 1])

    def made(value: float, inputs: Tensor) -> Tensor:
        return inputs if value >= 1.5 or value <= 0.3 else -inputs

    strength, facts = choose_strength("auto", (torch.eye(2), targets), made)
    assert strength == 1.5
    assert facts["tried"]["1.5"] == 1.0
    assert facts["tried"]["1"] == 0.0


@pytest.mark.parametrize("text", ["x", "", "nan", "inf"])
def test_a_strength_is_a_number(text: str) -> None:
    with pytest.raises(InputError, match=f"tau=auto or a number; got tau={text}; leave it out"):
        choose_strength(text, None, lambda value, inputs: inputs)
