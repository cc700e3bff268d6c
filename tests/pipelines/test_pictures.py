from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    ReportConfig,
    TrainConfig,
    load_model,
    report,
    train,
)
from pipelines.pictures import write_pictures

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])


def test_pictures_are_rows_of_tiles_in_the_colours_of_the_images(tmp_path: Path) -> None:
    colours = torch.tensor([[[250, 10, 0], [0, 128, 255]], [[1, 2, 3], [90, 80, 70]]]) / 255  # (2, 2, 3)
    rows = ((colours - MEAN) / STD)[..., None, None].expand(2, 2, 3, 8, 8)
    write_pictures(tmp_path, {"tiles": rows}, MEAN, STD)
    sheet = np.asarray(Image.open(tmp_path / "pictures" / "tiles.png"))
    assert sheet.shape == (2 * 78 + 6, 2 * 78 + 6, 3)
    for row in range(2):
        for column in range(2):
            place = sheet[6 + 78 * row + 36, 6 + 78 * column + 36]
            assert place.tolist() == (colours[row, column] * 255).round().int().tolist()
    assert sheet[0, 0].tolist() == [255, 255, 255]


def test_what_is_beyond_black_and_white_is_cut(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"tiles": torch.stack([torch.full((1, 3, 8, 8), v) for v in (-9.0, 9.0)])}, MEAN, STD)
    sheet = np.asarray(Image.open(tmp_path / "pictures" / "tiles.png"))
    assert sheet[40, 40].tolist() == [0, 0, 0]
    assert sheet[118, 40].tolist() == [255, 255, 255]


def test_nothing_to_show_makes_no_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path, {}, MEAN, STD)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", ["end_to_end", "separate", "classifier"])
def test_reconstructions_are_in_the_report_and_no_decoder_in_the_model(stage: str, photos: Path, here: Path) -> None:
    """One image of each class over its reconstruction."""
    run = train(
        TrainConfig(
            data=DataConfig(data=str(photos), image_size=16),
            model=ModelConfig(model="small_cnn"),
            objective=ObjectiveConfig(method="autoencoder", option=(f"stage={stage}", "encoder=unet")),
            optimization=OptimizationConfig(updates=2, batch_size=16),
            place=PlaceConfig(device="cpu", report_to="none"),
        )
    ).folder
    files = report(ReportConfig(runs=(run,)))
    page = files.html.read_text()
    assert ("reconstructions" in page) == (stage != "classifier")
    if stage != "classifier":
        with Image.open(run / "pictures" / "reconstructions.png") as sheet:
            assert sheet.size == (4 * 78 + 6, 2 * 78 + 6)
    model = load_model(run)
    assert model.description.backbone == "unet"
    assert not any("decoder" in name for name in model.classifier.state_dict())
    assert json.loads((run / "model/model.json").read_text())["head"] == "linear"
