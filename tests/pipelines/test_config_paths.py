"""Text in place of paths, in every config that holds paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import (
    DataConfig,
    EvaluateConfig,
    FilterConfig,
    InspectConfig,
    ModelConfig,
    ObjectiveConfig,
    PlaceConfig,
    PredictConfig,
    ReportConfig,
    RetrainConfig,
    StableDiffusionConfig,
    SynthesizeConfig,
    TrainConfig,
)


def test_text_becomes_a_path() -> None:
    data = DataConfig(data="digits", root="a")  # type: ignore[arg-type]
    assert (data.data, data.root) == ("digits", Path("a"))
    assert EvaluateConfig(run="a").run == RetrainConfig(run="a").run == Path("a")  # type: ignore[arg-type]
    assert ReportConfig(runs=["a", Path("b")]).runs == (Path("a"), Path("b"))  # type: ignore[arg-type, list-item]
    assert SynthesizeConfig(data=data, out="a").out == Path("a")  # type: ignore[arg-type]
    assert TrainConfig(data=data, synthetic="a").synthetic == Path("a")  # type: ignore[arg-type]
    assert InspectConfig(data=data, picture="a.png").picture == Path("a.png")  # type: ignore[arg-type]
    assert ModelConfig(weights="a").weights == ObjectiveConfig(teacher="a").teacher  # type: ignore[arg-type]
    assert PlaceConfig(output="a").output == FilterConfig(clip="a").clip == Path("a")  # type: ignore[arg-type]
    assert StableDiffusionConfig(adapter="a").adapter == Path("a")  # type: ignore[arg-type]


@pytest.mark.parametrize("one", ["a", Path("a")])
def test_one_path_will_do_where_several_may_be(one: str | Path) -> None:
    assert PredictConfig(run=Path("run"), images=one).images == (Path("a"),)  # type: ignore[arg-type]
    assert ReportConfig(runs=one).runs == (Path("a"),)  # type: ignore[arg-type]


def test_what_is_none_stays_so() -> None:
    data = DataConfig(data="digits")
    assert data.root is None
    assert TrainConfig(data=data).synthetic is None
