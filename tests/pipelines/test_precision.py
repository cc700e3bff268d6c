"""What --amp auto is: the same on every start, what the user says where the user says it, and close to float32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipelines import DataConfig, ModelConfig, OptimizationConfig, PlaceConfig, TrainConfig, train
from pipelines.precision import Amp, resolve_amp

CPU = torch.device("cpu")
FAST = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@pytest.mark.parametrize("amp", ["no", "bf16", "fp16"])
def test_what_is_asked_for_is_taken(amp: Amp) -> None:
    assert resolve_amp(amp, CPU, 32) == amp


def test_auto_is_float32_for_small_images_and_by_the_device_for_others() -> None:
    assert resolve_amp("auto", CPU, 16) == "no"
    assert resolve_amp("auto", CPU, 32) == ("bf16" if FAST else "no")
    assert resolve_amp("auto", torch.device("mps"), 32) == "no"


def test_precision_is_remembered_and_a_finished_run_found_again(photos: Path, here: Path) -> None:
    def config(amp: Amp) -> TrainConfig:
        return TrainConfig(
            data=DataConfig(data=str(photos), image_size=24),
            model=ModelConfig(model="small_cnn"),
            optimization=OptimizationConfig(updates=3, batch_size=16, amp=amp),
            place=PlaceConfig(device="cpu", report_to="none", experiment=f"with-{amp}"),
        )

    result = train(config("auto"))
    resolved = json.loads((result.folder / "classes.json").read_text())["precision"]
    assert resolved == ("bf16" if FAST else "no")
    assert train(config("auto")).metrics == result.metrics
    assert train(config(resolved)).metrics["test"] == result.metrics["test"]
