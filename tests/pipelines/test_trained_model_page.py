"""The page on `model/`: its snippets run, and it names every file and every field."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines import DataConfig, ModelConfig, OptimizationConfig, PlaceConfig, TrainConfig, load_model, train

PAGE = (Path(__file__).parents[2] / "docs" / "trained-model.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


@pytest.fixture(scope="module")
def folder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    shutil.copyfile(next((photos / "test").rglob("*.jpg")), folder / "photo.png")
    train(
        TrainConfig(
            data=DataConfig(data=str(photos), image_size=16),
            model=ModelConfig(model="resnet20"),
            optimization=OptimizationConfig(updates=2, batch_size=16),
            place=PlaceConfig(
                device="cpu", report_to="none", output=folder / "runs", experiment="photos-balanced_mixup"
            ),
        )
    )
    return folder


def test_snippets_run_and_the_exported_file_needs_torch_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    *here, elsewhere = SNIPPETS
    names: dict[str, object] = {}
    for snippet in here:
        exec(compile(snippet, "trained-model.md", "exec"), names)
    without = f"import sys\nfor name in ('pipelines', 'rebalance'):\n    sys.modules[name] = None\n{elsewhere}"
    shown = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, check=True).stdout
    classifier = load_model(folder / "runs/train/photos-balanced_mixup").classifier
    expected = classifier(torch.zeros(1, 3, 16, 16)).softmax(dim=1)
    numbers = [float(value) for value in re.findall(r"\d\.\d+(?:e-?\d+)?", shown)]
    torch.testing.assert_close(torch.tensor([numbers]), expected.detach(), rtol=0, atol=1e-4)
    exported = torch.export.load("classifier.pt2").module()
    images = names["images"]
    assert isinstance(images, torch.Tensor)
    torch.testing.assert_close(exported(images[:1].repeat(5, 1, 1, 1)), classifier(images[:1]).expand(5, -1))


def test_every_file_and_field_is_named(folder: Path) -> None:
    model = folder / "runs/train/photos-balanced_mixup/model"
    named = set(re.findall(r"`([\w.]+)`", PAGE))
    assert {file.name for file in model.iterdir()} <= named
    assert set(json.loads((model / "model.json").read_text())) - {"classes"} <= named
