"""`--compile`: the figures of a plain training, and no compilation beyond the first updates of each phase."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from cli import main
from pipelines import DataConfig, ModelConfig, ObjectiveConfig, OptimizationConfig, TrainConfig
from pipelines.loop import Step, training_steps
from pipelines.open_data import OpenData
from pipelines.optimization import build_optimizer
from pipelines.preparation import prepare_training
from pipelines.recipes import RECIPES

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of the tracer

BATCH, EPOCH = 16, 3  # 46 images: batches of 16, 15 and 15
UPDATES = 8 * EPOCH
OBJECTIVES: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in RECIPES if name != "composed"},
    **{name: {"method": name, "option": ("defer_until=0.5",)} for name in ("ce_drw", "ldam_drw")},
    **{name: {"method": name, "option": ("defer_until=0.5", "until=0.5")} for name in ("mixup_drw", "remix_drw")},
    "balanced_mixup": {"method": "balanced_mixup", "option": ("until=0.5",)},
    "rsg": {"method": "rsg", "option": ("start=0.5", "defer_until=0.5", "n_centers=3")},
    **{name: {"method": name, "option": ("queue=200", "projection=8")} for name in ("paco", "gpaco")},
    "bcl": {"method": "bcl", "option": ("projection=8", "hidden=16")},
    "autoencoder": {"method": "autoencoder", "option": ("stage=separate", "pretraining=0.5", "encoder=small_cnn")},
    "cmo": {"method": "balanced_softmax", "mix": "cmo:1:0.5:0.5"},
    "taught": {"method": "balanced_mixup", "option": ("until=0.5",)},
    "founding": {"loss": ("ldam:0.1", "supcon:0.9"), "head": "cosine", "rsg": True, "rsg_start": 0.5},
}
CORE = ("balanced_mixup", "ldam_drw", "paco", "founding")


@pytest.fixture(autouse=True)
def stay_compiled() -> Iterator[None]:
    """What is compiled too often is an error, where it would be left alone with a warning."""
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield


def updates(noise: OpenData, objective: dict[str, Any], *, compiled: bool, backend: Any = "eager") -> Iterator[Step]:
    """Steps of a small training; what is traced is the same with every backend."""
    config = TrainConfig(
        data=DataConfig(data="made", image_size=8, augment="crop"),
        model=ModelConfig(model="small_cnn"),
        objective=ObjectiveConfig(**objective),
        optimization=OptimizationConfig(updates=UPDATES, batch_size=BATCH, lr=0.01, amp="no"),
    )
    parts = prepare_training(config, noise, torch.device("cpu"))
    optimizer = build_optimizer(parts.method, config.optimization, parts.method.learning_rate_factors)
    if compiled:
        torch.compiler.reset()
        parts.method.compile(backend=backend)
    return training_steps(parts.method, parts.method, optimizer, parts.data, parts.batches, config.optimization, seed=0)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in CORE else pytest.mark.slow) for n in OBJECTIVES])
def test_every_phase_is_compiled_once_and_gives_the_same_figures(name: str, noise: OpenData, untrained: Path) -> None:
    objective = OBJECTIVES[name] if name != "taught" else {**OBJECTIVES[name], "teacher": untrained}
    counters.clear()
    plain = [step.terms for step in updates(noise, objective, compiled=False)]
    compiled, graphs = [], []
    for step in updates(noise, objective, compiled=True):
        compiled.append(step.terms)
        graphs.append(counters["stats"]["unique_graphs"])
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
    assert graphs[0] > 0
    half = UPDATES // 2
    for begin, end in ((0, half), (half, UPDATES)):
        settled = begin + 2 * EPOCH  # both sizes of a batch; a queue of 200 keys is full after 13 updates
        assert graphs[settled - 1] == graphs[end - 1], graphs


@pytest.mark.parametrize("name", ["balanced_mixup", "paco"])
def test_what_is_compiled_is_for_one_size_of_a_batch(name: str, noise: OpenData) -> None:
    """Code for any size would be made at the last batch of an epoch, and be slower ever after."""
    inputs: list[Any] = []

    def backend(graph: torch.fx.GraphModule, examples: list[Any]) -> Any:
        inputs.extend(examples)
        return graph.forward

    for _ in updates(noise, OBJECTIVES[name], compiled=True, backend=backend):
        pass
    assert inputs
    assert not any(isinstance(example, torch.SymInt) for example in inputs)


@pytest.mark.slow
def test_the_command_compiles_for_this_machine_and_learns_as_without(tmp_path: Path) -> None:
    losses = []
    for name, flags in (("plain", []), ("compiled", ["--compile"])):
        words = ["train", "digits", "--updates", "40", "--report-to", "none", "--output", str(tmp_path)]
        assert main([*words, "--experiment", name, *flags]) == 0
        history = (tmp_path / "train" / name / "history.csv").read_text()
        losses.append([float(row["train_loss"]) for row in csv.DictReader(history.splitlines())])
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-3)
    assert losses[1][-1] == pytest.approx(losses[0][-1], rel=0.1)
