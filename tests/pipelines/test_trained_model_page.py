"""The page on `model/`: its snippets run, and it names every file and every field."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli import main
from pipelines import DataConfig, ModelConfig, OptimizationConfig, PlaceConfig, TrainConfig, load_model, train

PAGE = (Path(__file__).parents[2] / "docs" / "trained-model.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
COMMANDS = re.findall(r"```bash\n(.*?)\n```", PAGE, flags=re.S)


@pytest.fixture(scope="module")
def folder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    pixels = np.zeros((24, 40, 4), dtype=np.uint8)
    pixels[6:18, 10:30] = (200, 40, 90, 255)
    Image.fromarray(pixels).save(folder / "photo.png")  # black where it is transparent
    shutil.copytree(photos / "test", folder / "photos")
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


def test_snippets_run_and_the_exported_file_gives_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    mistakes, here, elsewhere, _ = SNIPPETS
    names: dict[str, Any] = {}
    exec(compile(here, "trained-model.md", "exec"), names)
    for command in "\n".join(COMMANDS).splitlines():
        device = [] if " export " in command else ["--device", "cpu"]
        assert main([*shlex.split(command)[1:], *device]) == 0
    capsys.readouterr()
    exec(compile(mistakes, "trained-model.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 10
    without = f"import sys\nfor name in ('pipelines', 'rebalance'):\n    sys.modules[name] = None\n{elsewhere}"
    shown = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, check=True).stdout
    assert shown.startswith(names["model"].predict("photo.png")[0])
    numbers = [float(value) for value in re.findall(r"\d\.\d+(?:e-?\d+)?", shown)]
    np.testing.assert_allclose([numbers], names["model"].predict_proba("photo.png"), atol=1e-4)


def test_the_exported_file_sees_transparent_photos_as_the_model_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    model = load_model("runs/train/photos-balanced_mixup")
    assert main(["export", "runs/train/photos-balanced_mixup", "--out", "classifier.pt2"]) == 0
    clear = Image.open("photo.png").convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save("clear.png")
    names: dict[str, Any] = {}
    exec(compile(SNIPPETS[2].replace("photo.png", "clear.png"), "trained-model.md", "exec"), names)
    expected = model.predict_proba("clear.png")
    assert np.abs(expected - model.predict_proba("photo.png")).max() > 1e-3
    np.testing.assert_allclose(names["probabilities"].detach().numpy(), expected, atol=1e-4)


def test_the_snippet_for_onnx_gives_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.chdir(folder)
    model = load_model("runs/train/photos-balanced_mixup")
    assert main(["export", "runs/train/photos-balanced_mixup", "--format", "onnx"]) == 0
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    names: dict[str, Any] = {"json": json, "pixels": pixels.transpose(0, 3, 1, 2)}
    exec(compile(SNIPPETS[3], "trained-model.md", "exec"), names)
    np.testing.assert_allclose(names["same"], model.predict_proba(pixels), atol=1e-4)
    assert tuple(names["names"]) == model.classes


def test_every_file_and_field_is_named(folder: Path) -> None:
    model = folder / "runs/train/photos-balanced_mixup/model"
    named = set(re.findall(r"`([\w.]+)`", PAGE))
    assert {file.name for file in model.iterdir()} <= named
    assert set(json.loads((model / "model.json").read_text())) - {"classes"} <= named
