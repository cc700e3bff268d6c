"""Where many-shot begins and few-shot ends is one setting, from the class table to the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

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
    others = evaluate(EvaluateConfig(run=result.folder, device="cpu", many=0, few=0))
    assert others["groups"]["many"] == pytest.approx(others["balanced_accuracy"])
    with pytest.raises(InputError, match=r"few <= many \(= 30\); got few = 31"):
        evaluate(EvaluateConfig(run=result.folder, device="cpu", few=31))
    html = report(ReportConfig(runs=(result.folder,))).html.read_text()
    assert "Many-shot classes have more than 30 real training images, few-shot fewer than 5." in html
    described = json.loads((result.folder / "model" / "model.json").read_text())
    assert (described["many"], described["few"]) == (30, 5)


def test_swapped_thresholds_are_refused() -> None:
    with pytest.raises(InputError, match=r"few <= many \(= 10\); got few = 20"):
        train(TrainConfig(data=DataConfig(data="digits", many=10)))


@pytest.mark.parametrize(("many", "few"), [(-1, 0), (100, -1)])
def test_negative_thresholds_are_refused(many: int, few: int) -> None:
    with pytest.raises(InputError, match=r"--(many|few) .*; got -1"):
        inspect(InspectConfig(data=DataConfig(data="digits", many=many, few=few)))


def test_runs_that_say_no_thresholds_are_of_one_arm_with_those_that_do_and_others_are_not_compared(
    tmp_path: Path,
) -> None:
    def run(seed: int, **thresholds: int) -> Path:
        return train(
            TrainConfig(
                data=DataConfig(data="digits", **thresholds),
                objective=ObjectiveConfig(method="ce"),
                optimization=OptimizationConfig(updates=1, batch_size=16),
                seed=seed,
                place=PlaceConfig(device="cpu", report_to="none", output=tmp_path / str(len(thresholds))),
            )
        ).folder

    before, after, other = run(0), run(1), run(2, many=40, few=5)
    config = yaml.safe_load((before / "config.yaml").read_text())
    del config["data"]["many"], config["data"]["few"]
    (before / "config.yaml").write_text(yaml.safe_dump(config))
    files = report(ReportConfig(runs=(before, after), out=tmp_path / "report"))
    assert list(json.loads(files.json.read_text())["arms"]) == ["digits-ce"]
    with pytest.raises(InputError, match=r"the same --many and --few; got .*than 100 and .*than 40 and fewer than 5"):
        report(ReportConfig(runs=(before, other), out=tmp_path / "report"))
