from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from pipelines import (
    BudgetConfig,
    DataConfig,
    FilterConfig,
    GeneratorConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    SynthesizeConfig,
    TrainConfig,
    synthesize,
    train,
)
from pipelines.kernels import kernels
from pipelines.recipes import RECIPES

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def state() -> tuple[bool, bool, str | None]:
    return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, os.environ.get(WORKSPACE)


@pytest.fixture(autouse=True)
def _no_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)


def test_deterministic_kernels_are_chosen_and_the_choice_of_before_comes_back() -> None:
    before, inside = state(), []

    def fail() -> None:
        with kernels(deterministic=True):
            inside.append(state())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert inside == [(True, False, ":4096:8")]
    assert state() == before


def test_the_fastest_kernels_are_chosen_by_time_where_results_may_differ_by_roundings() -> None:
    with kernels(deterministic=False):
        assert state()[:2] == (False, True)
    with kernels(deterministic=False, timed=False):
        assert state()[:2] == (False, False)


def test_a_deterministic_synthesis_stays_so_in_the_training_inside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":16:8")
    with kernels(deterministic=True, timed=False), kernels(deterministic=False):
        assert state() == (True, False, ":16:8")
    assert state() == (False, False, ":16:8")


def test_operations_without_a_deterministic_kernel_are_refused_inside() -> None:
    maps = torch.rand(1, 1, 2, 2, 2, requires_grad=True)
    with kernels(deterministic=True), pytest.raises(RuntimeError, match="deterministic"):
        torch.nn.functional.max_unpool3d(maps, torch.zeros(1, 1, 2, 2, 2, dtype=torch.int64), 2)


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_flag_reaches_the_updates_and_the_generator(
    deterministic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[bool, bool]] = []
    step = torch.optim.Optimizer.zero_grad

    def look(self: torch.optim.Optimizer, set_to_none: bool = True) -> None:
        found.append(state()[:2])
        step(self, set_to_none)

    monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", look)
    data = DataConfig(data="digits")
    train(
        TrainConfig(
            data=data,
            optimization=OptimizationConfig(updates=2, batch_size=32, deterministic=deterministic),
            place=PlaceConfig(output=tmp_path, device="cpu", report_to="none"),
        )
    )
    assert set(found) == {(deterministic, not deterministic)}
    found.clear()
    synthesize(
        SynthesizeConfig(
            data=data,
            out=tmp_path / "images",
            budget=BudgetConfig(max_images=4),
            generator=GeneratorConfig(generator_updates=2, generator_batch_size=4, generator_channels=(8, 16), steps=2),
            filter=FilterConfig(skip_gate=("distance",), feature_updates=2),
            deterministic=deterministic,
            device="cpu",
        )
    )
    assert (deterministic, False) in found  # of the generator


@pytest.mark.parametrize("method", [name for name in RECIPES if name != "composed"])
def test_every_method_trains_with_deterministic_kernels(method: str, tmp_path: Path) -> None:
    def weights(deterministic: bool) -> dict[str, bytes]:
        folder = train(
            TrainConfig(
                data=DataConfig(data="digits"),
                objective=ObjectiveConfig(method=method),
                optimization=OptimizationConfig(updates=2, batch_size=32, deterministic=deterministic),
                place=PlaceConfig(output=tmp_path, experiment=str(deterministic), device="cpu", report_to="none"),
            )
        ).folder
        return {path.name: path.read_bytes() for path in (folder / "model").glob("*.safetensors")}

    assert weights(True) == weights(False) != {}
