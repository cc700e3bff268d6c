"""Every recipe in `rebalance run`: beside plain cross entropy and synthetic images, and as the selected model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines import (
    BudgetConfig,
    DataConfig,
    FilterConfig,
    GeneratorConfig,
    RebalanceConfig,
    TrainConfig,
    load_model,
    rebalance_and_train,
)
from pipelines.recipes import RECIPES


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "paco" else [pytest.mark.slow]) for name in RECIPES]
)
def test_every_recipe_works_in_a_pipeline(
    name: str, recipe_config: Callable[..., TrainConfig], photos: Path, tmp_path: Path
) -> None:
    settings = recipe_config(name)
    result = rebalance_and_train(
        RebalanceConfig(
            data=DataConfig(data=str(photos), image_size=16),
            model=settings.model,
            objective=settings.objective,
            optimization=settings.optimization,
            budget=BudgetConfig(max_images=12),
            generator=GeneratorConfig(
                generator_updates=4, generator_batch_size=8, generator_channels=(8, 16), steps=2, sampling_batch=16
            ),
            filter=FilterConfig(skip_gate=("distance",)),
            arms=("ce", "rebalanced", "synthetic"),
            seeds=1,
            tune=(),
            place=replace(settings.place, output=tmp_path),
        )
    )
    assert result.metrics["method"] == name
    assert set(result.metrics["arms"]) == {"ce", "rebalanced", "synthetic"}
    model, arm = (load_model(result.folder / part) for part in ("", "arms/rebalanced/seed-0"))
    pictures = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.classifier(pictures), arm.classifier(pictures))
