"""Every recipe on real images, long enough to learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import DataConfig, PlaceConfig, TrainConfig, train
from pipelines.recipes import RECIPES


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_learns(name: str, recipe_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    """Balanced accuracy on digits, ten classes, at least 30 points over chance."""
    objective = replace(recipe_config(name).objective, option=())
    settings = recipe_config(
        name,
        data=DataConfig(data="digits"),
        objective=objective,
        optimization={"updates": 150, "batch_size": 128},
        place=PlaceConfig(device="cpu", report_to="none", output=tmp_path),
    )
    accuracy = train(settings).metrics["test"]["balanced_accuracy"]
    print(f"{name}: {100 * accuracy:.1f} %")
    assert accuracy >= 0.4
