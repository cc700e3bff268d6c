"""Where many-shot begins and few-shot ends is one setting, from the class table to the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines import (
    DataConfig,
    EvaluateConfig,
    InspectConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    ReportConfig,
    TrainConfig,
    evaluate,
    inspect,
    report,
    train,
)
from rebalance.errors import InputError


def test_the_thresholds_of_a_run_are_those_of_its_table_figures_and_report(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = DataConfig(data=str(photos), image_size=16, many=30, few=5)
    groups = list(inspect(InspectConfig(data=data)).statistics.groups)
    assert set(groups) == {"many", "medium", "few"}
    result = train(
        TrainConfig(
            data=data,
            model=ModelConfig(model="small_cnn"),
            objective=ObjectiveConfig(method="ce"),
            optimization=OptimizationConfig(updates=1, batch_size=16),
            place=PlaceConfig(device="cpu", report_to="none", output=tmp_path),
        )
    )
    assert result.metrics["groups"] == groups
    figures = evaluate(EvaluateConfig(run=result.folder, device="cpu"))
    for group in ("many", "medium", "few"):
        recall = [value for value, own in zip(figures["recall"], groups, strict=True) if own == group]
        assert figures["groups"][group] == pytest.approx(sum(recall) / len(recall))
    html = report(ReportConfig(runs=(result.folder,))).html.read_text()
    assert "Many-shot classes have more than 30 real training images, few-shot fewer than 5." in html
    described = json.loads((result.folder / "model" / "model.json").read_text())
    assert (described["many"], described["few"]) == (30, 5)


def test_swapped_thresholds_are_refused() -> None:
    with pytest.raises(InputError, match=r"few <= many \(= 10\); got few = 20"):
        train(TrainConfig(data=DataConfig(data="digits", many=10)))
