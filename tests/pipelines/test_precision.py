"""What --amp auto is: what the hardware is known for, else what was measured, to the end of the run on any machine."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines import (
    BudgetConfig,
    DataConfig,
    FilterConfig,
    GeneratorConfig,
    ModelConfig,
    OptimizationConfig,
    PlaceConfig,
    RebalanceConfig,
    RetrainConfig,
    TrainConfig,
    precision,
    rebalance_and_train,
    retrain,
    train,
)
from pipelines.console import warn_once
from pipelines.precision import Amp, bf16_speed, resolve_amp, resolve_generator_amp, warn_of_slow_bf16
from rebalance.errors import InputError

CPU = torch.device("cpu")
KNOWN = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this machine one that is not known for bf16 and computes it so many times as fast as float32."""

    def become(speed: float) -> None:
        warn_once.cache_clear()
        monkeypatch.setattr(precision, "_is_known_for_bf16", lambda device: False)
        monkeypatch.setattr(precision, "bf16_speed", lambda: speed)

    return become


def config(photos: Path, amp: Amp = "auto", **place: Any) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(data=str(photos), image_size=24),
        model=ModelConfig(model="small_cnn"),
        optimization=OptimizationConfig(updates=3, batch_size=16, amp=amp),
        place=PlaceConfig(device="cpu", report_to="none", **place),
    )


def saved(folder: Path) -> str:
    return str(json.loads((folder / "classes.json").read_text())["precision"])


@pytest.mark.parametrize("amp", ["no", "bf16", "fp16"])
def test_what_is_asked_for_is_taken(amp: Amp) -> None:
    assert resolve_amp(amp, CPU, 32) == amp


def test_auto_is_float32_for_small_images_and_by_the_device_for_others() -> None:
    assert resolve_amp("auto", CPU, 16) == "no"
    assert resolve_amp("auto", CPU, 32) == ("bf16" if KNOWN or bf16_speed() >= 1.2 else "no")
    assert resolve_amp("auto", torch.device("mps"), 32) == "no"


@pytest.mark.parametrize(("speed", "expected"), [(0.08, "no"), (1.1, "no"), (1.3, "bf16")])
def test_of_unknown_hardware_the_measured_speed_decides(machine: Any, speed: float, expected: Amp) -> None:
    machine(speed)
    assert resolve_amp("auto", CPU, 32) == expected
    assert resolve_amp("auto", CPU, 16) == "no"
    assert resolve_generator_amp("auto", CPU) == "no", "images of any CPU are to be nearly the same"


def test_speed_is_that_of_a_training_step_and_measured_once_in_a_process() -> None:
    bf16_speed.cache_clear()
    state = torch.get_rng_state()
    with torch.no_grad():
        speed = bf16_speed()
    assert 1 / 1000 < speed < 10
    assert (speed > 0.5) or not KNOWN
    assert torch.equal(torch.get_rng_state(), state)
    assert bf16_speed() is speed


@pytest.mark.parametrize(("speed", "said"), [(0.08, "12 times slower"), (0.4, "2 times slower"), (0.6, ""), (2.0, "")])
def test_slow_bf16_is_told_where_it_was_asked_for(
    machine: Any, caplog: pytest.LogCaptureFixture, speed: float, said: str
) -> None:
    machine(speed)
    with caplog.at_level(logging.WARNING):
        warn_of_slow_bf16("no", CPU)
        assert not caplog.messages
        assert resolve_generator_amp("bf16", CPU) == "bf16"
        warn_of_slow_bf16("bf16", CPU)  # once is enough
    assert len(caplog.messages) == bool(said)
    assert said in caplog.text


def test_precision_is_remembered_and_a_finished_run_found_again(photos: Path, here: Path) -> None:
    result = train(config(photos, experiment="auto"))
    resolved = saved(result.folder)
    assert resolved == resolve_amp("auto", CPU, 24)
    assert train(config(photos, experiment="auto")).metrics == result.metrics
    assert resolved in ("no", "bf16")
    plain = train(config(photos, resolved, experiment="plain"))  # type: ignore[arg-type]  # one of the two
    assert plain.metrics["test"] == result.metrics["test"]


def test_a_run_goes_on_in_the_precision_it_was_begun_with_whatever_the_machine(
    photos: Path, here: Path, machine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    machine(2.0)
    folder = train(config(photos)).folder
    assert saved(folder) == "bf16"
    (folder / "metrics.json").unlink()
    machine(0.1)
    with caplog.at_level(logging.INFO):
        train(config(photos))
    assert saved(folder) == "bf16"
    assert "precision bf16" in caplog.text
    assert "10 times slower than float32: go on where it was begun, or start again with --no-resume" in caplog.text
    train(config(photos, resume=False))
    assert saved(folder) == "no"


def test_another_precision_by_hand_is_another_run(photos: Path, here: Path, machine: Any) -> None:
    machine(2.0)
    train(config(photos))
    with pytest.raises(InputError, match="amp"):
        train(config(photos, "no"))


def test_a_folder_of_something_else_is_refused_as_such(photos: Path, here: Path) -> None:
    folder = here / "runs" / "train" / "foreign"
    folder.mkdir(parents=True)
    (folder / "classes.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="an empty folder or one of an earlier run"):
        train(config(photos, experiment="foreign"))


def test_a_second_stage_goes_on_in_its_precision(photos: Path, here: Path, machine: Any) -> None:
    machine(0.1)
    first = train(config(photos)).folder
    settings = RetrainConfig(run=first, optimization=config(photos).optimization, place=config(photos).place)
    machine(2.0)
    folder = retrain(settings).folder
    assert saved(folder) == "bf16"
    (folder / "metrics.json").unlink()
    machine(0.1)
    retrain(settings)
    assert saved(folder) == "bf16"


def test_all_arms_of_a_pipeline_have_the_precision_it_was_begun_with(
    photos: Path, here: Path, machine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    machine(2.0)
    one = config(photos)
    pipeline = RebalanceConfig(
        data=DataConfig(data="digits", imbalance_factor=5, val_fraction=0.5, image_size=24),
        model=one.model,
        optimization=one.optimization,
        generator=GeneratorConfig(generator_updates=2, generator_batch_size=8, generator_channels=(8, 16), steps=2),
        budget=BudgetConfig(max_images=8, reserve=0),
        filter=FilterConfig(skip_gate=("distance",)),
        place=one.place,
        arms=("ce", "rebalanced", "synthetic"),
        seeds=1,
        tune=("1:0.5",),
    )
    folder = rebalance_and_train(pipeline).folder
    trainings = ("arms/ce/seed-0", "arms/synthetic/seed-0", "tuning/without", "tuning/candidate-0")
    assert [saved(folder / name) for name in (".", *trainings)] == ["bf16"] * 5
    (folder / "metrics.json").unlink()
    (folder / "classes.json").unlink()  # as of an earlier version
    for name in trainings[1:]:
        (folder / name / "metrics.json").unlink()
        (folder / name / "classes.json").unlink()
    machine(0.1)
    with caplog.at_level(logging.WARNING):
        rebalance_and_train(replace(pipeline, dry_run=True))
    assert "bf16 10 times slower" in caplog.text, "the plan is of the precision that the run has"
    rebalance_and_train(pipeline)
    assert [saved(folder / name) for name in (".", *trainings)] == ["bf16"] * 5
