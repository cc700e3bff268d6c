"""Training that starts from weights of another network's file or folder, through config and saved model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import transformers
from safetensors.torch import load_file, save_file

from pipelines import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    RetrainConfig,
    TrainConfig,
    load_model,
    retrain,
    train,
)
from rebalance.backbones import build_backbone
from rebalance.backbones.weights_file import IMAGENET
from rebalance.data.digits import read_digits
from rebalance.errors import InputError

CPU = PlaceConfig(device="cpu", report_to="none")


def weights_file(root: Path) -> tuple[str, Path]:
    torch.manual_seed(0)
    save_file(torchvision.models.resnet18().state_dict(), root / "resnet18.safetensors")
    return "resnet18", root / "resnet18.safetensors"


def model_folder(root: Path) -> tuple[str, Path]:
    torch.manual_seed(0)
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    transformers.ViTModel(transformers.ViTConfig(**layers, image_size=16, patch_size=4)).save_pretrained(root / "vit")
    return "transformers", root / "vit"


def config(name: str, weights: Path | None, **objective: object) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(data="digits", image_size=16),
        model=ModelConfig(model=name, weights=weights),
        objective=ObjectiveConfig(method="balanced_softmax", **objective),  # type: ignore[arg-type]
        optimization=OptimizationConfig(updates=2, batch_size=16, lr=1e-9, warmup_epochs=0),
        place=CPU,
    )


@pytest.mark.parametrize("make", [weights_file, model_folder])
def test_training_starts_from_the_weights_and_its_model_needs_them_no_more(
    make: Callable[[Path], tuple[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, weights = make(tmp_path)
    run = train(config(name, weights)).folder
    start = build_backbone(name, image_size=16, weights=weights)
    kept = load_file(run / "model" / "weights.safetensors")
    for key, parameter in start.stages[-1].named_parameters():
        torch.testing.assert_close(
            kept[f"backbone.stages.{len(start.stages) - 1}.{key}"], parameter.detach(), atol=1e-6, rtol=0
        )

    shutil.rmtree(weights) if weights.is_dir() else weights.unlink()
    model = load_model(run)
    assert (model.description.mean, model.description.std) == IMAGENET
    pixels = list(read_digits().test.images[:3])
    probabilities = model.predict_proba(pixels)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    second = retrain(RetrainConfig(run=run, method="tau_norm", place=CPU))
    assert load_model(second.folder).predict_proba(pixels).shape == probabilities.shape


def test_settings_that_do_not_go_with_the_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, folder = model_folder(tmp_path)
    with pytest.raises(InputError, match="a folder with a transformers model; got none"):
        train(config("transformers", None))
    with pytest.raises(InputError, match=r"a backbone of at least two stages .*; got transformers, which has 1"):
        train(config("transformers", folder, rsg=True))
    for name in ("resnet18", "auto"):
        with pytest.raises(InputError, match=r"a weights file; got the folder .*vit; use --model transformers"):
            train(config(name, folder))
    assert not (tmp_path / "runs").exists()
