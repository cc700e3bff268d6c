"""Settings made in Python, as people write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipelines
from pipelines import (
    BudgetConfig,
    DataConfig,
    EvaluateConfig,
    ExportConfig,
    FilterConfig,
    GeneratorConfig,
    InspectConfig,
    MixingConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    PredictConfig,
    ReportConfig,
    RetrainConfig,
    StableDiffusionConfig,
    SynthesizeConfig,
    TrainConfig,
)
from pipelines.config import COMMANDS
from rebalance.errors import InputError


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


@pytest.mark.parametrize(
    ("made", "meant"),
    [
        (lambda: ObjectiveConfig(loss="ldam:1").loss, ("ldam:1",)),
        (lambda: ObjectiveConfig(loss=["ldam:0.1", "supcon:0.9"]).loss, ("ldam:0.1", "supcon:0.9")),
        (lambda: ObjectiveConfig(option="max_margin=0.3").option, ("max_margin=0.3",)),
        (lambda: ObjectiveConfig(option={"max_margin": 0.3, "s": 2}).option, ("max_margin=0.3", "s=2")),
        (lambda: BudgetConfig(count={"cat": 50}).count, ("cat=50",)),
        (lambda: FilterConfig(skip_gate="flat").skip_gate, ("flat",)),
        (lambda: StableDiffusionConfig(strength=0.5).strength, (0.5,)),
        (lambda: GeneratorConfig(generator_channels=[64, np.int64(128)]).generator_channels, (64, 128)),
        (lambda: DataConfig(data=Path("photos")).data, "photos"),
        (lambda: OptimizationConfig(lr=np.float32(0.5)).lr, 0.5),
        (lambda: type(OptimizationConfig(updates=np.int64(30)).updates), int),
        (lambda: MixingConfig(kappa="drawn").kappa, "drawn"),
        (lambda: OptimizationConfig(lr=1).lr, 1),
    ],
)
def test_what_can_mean_one_thing_only_is_taken(made: Callable[[], Any], meant: object) -> None:
    assert made() == meant


DATA = DataConfig(data="digits")


@pytest.mark.parametrize(
    ("make", "expected", "got", "fix"),
    [
        (
            lambda: TrainConfig(data="photos"),
            "a DataConfig for TrainConfig.data",
            "'photos'",
            "write data=DataConfig(data='photos')",
        ),
        (
            lambda: TrainConfig(data=DATA, model="small_cnn"),
            "a ModelConfig for TrainConfig.model",
            "'small_cnn'",
            "write model=ModelConfig(model='small_cnn')",
        ),
        (
            lambda: TrainConfig(data=DATA, objective="ldam"),
            "an ObjectiveConfig for TrainConfig.objective",
            "'ldam'",
            "write objective=ObjectiveConfig(…)",
        ),
        (
            lambda: TrainConfig(data=DATA, optimization={"updates": 3}),
            "an OptimizationConfig for TrainConfig.optimization",
            "{'updates': 3}",
            "write optimization=OptimizationConfig(…)",
        ),
        (
            lambda: OptimizationConfig(updates="30"),
            "a whole number or None for OptimizationConfig.updates",
            "'30'",
            "write updates=30",
        ),
        (
            lambda: OptimizationConfig(epochs=2.5),
            "a whole number for OptimizationConfig.epochs",
            "2.5",
            "the default is epochs=200",
        ),
        (
            lambda: OptimizationConfig(lr=True),
            "a number or None for OptimizationConfig.lr",
            "True",
            "the default is lr=None",
        ),
        (
            lambda: ExportConfig(run="run", format="torchscript"),
            "one of pt2, onnx or None for ExportConfig.format",
            "'torchscript'",
            "the default is format=None",
        ),
        (
            lambda: MixingConfig(kappa="most"),
            "a number or drawn for MixingConfig.kappa",
            "'most'",
            "the default is kappa='drawn'",
        ),
        (
            lambda: ObjectiveConfig(loss=("ldam:1", 3)),
            "a list, each text for ObjectiveConfig.loss",
            "('ldam:1', 3)",
            "the default is loss=()",
        ),
        (lambda: DataConfig(data=None), "text for DataConfig.data", "None", "correct data"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_the_name_of_its_field(
    make: Callable[[], Any], expected: str, got: str, fix: str
) -> None:
    with pytest.raises(InputError) as refused:
        make()
    assert (refused.value.expected, refused.value.got, refused.value.fix) == (expected, got, fix)


FUNCTIONS = {name: "rebalance_and_train" if name == "run" else name for name in COMMANDS if name != "methods"}


@pytest.mark.parametrize(("command", "function"), FUNCTIONS.items())
def test_every_function_says_which_settings_it_takes(command: str, function: str) -> None:
    name = COMMANDS[command].__name__
    with pytest.raises(InputError, match=rf"settings of class {name}; got 'photos'; write {name}\("):
        getattr(pipelines, function)("photos")


def test_the_advice_for_a_function_is_what_to_write() -> None:
    for function, advice in {
        pipelines.train: "write TrainConfig(data=DataConfig(data='photos'))",
        pipelines.predict: "write PredictConfig(run='photos', images=…)",
    }.items():
        with pytest.raises(InputError) as refused:
            function("photos")  # type: ignore[operator]
        assert refused.value.fix == advice


def test_rows_of_values_of_any_kind_become_tuples() -> None:
    expected = (Path("a"), Path("b"))
    for runs in (np.array(["a", "b"]), iter([Path("a"), "b"]), {"a": 1, "b": 2}.keys()):
        assert ReportConfig(runs=runs).runs == expected  # type: ignore[arg-type]


def test_whole_numbers_may_be_written_with_an_exponent() -> None:
    found = OptimizationConfig(updates=1e4)  # type: ignore[arg-type]
    assert (found.updates, type(found.updates)) == (10_000, int)
    with pytest.raises(InputError, match=r"a whole number .*for OptimizationConfig.updates; got 10.5"):
        OptimizationConfig(updates=10.5)  # type: ignore[arg-type]


def test_names_of_pairs_may_be_numbers_of_numpy_and_values_are_single_ones() -> None:
    assert ObjectiveConfig(class_weight={np.int64(0): 2.0}).class_weight == ("0=2.0",)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"one value for each name; got \(1, 2\) for 'a'"):
        ObjectiveConfig(option={"a": (1, 2)})  # type: ignore[arg-type]
