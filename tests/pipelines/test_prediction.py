"""`predict`: what a trained run says of files and folders, and the file that it is written to."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cli import main
from pipelines import PredictConfig, load_model, predict
from pipelines.model_files import TrainedClassifier
from rebalance.errors import InputError, RunError


@pytest.fixture
def folder(photos: Path, here: Path) -> Path:
    """`new`: ten photographs, one of them rotated by EXIF, one transparent, one below another folder."""
    (here / "new" / "deep").mkdir(parents=True)
    for i, file in enumerate(sorted((photos / "test").rglob("*.jpg"))[::5]):
        shutil.copy(file, here / "new" / f"{i}.jpg")
    shutil.move("new/7.jpg", "new/deep/7.jpg")
    rotated = Image.Exif()
    rotated[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (12, 30, 4), dtype=np.uint8)
    Image.fromarray(pixels[..., :3]).save("new/8.jpg", exif=rotated)
    Image.fromarray(pixels).save("new/9.png")
    return Path("new")


def config(run: Path, *images: Path | str, **settings: Any) -> PredictConfig:
    return PredictConfig(run=run, images=tuple(map(Path, images)), **{"device": "cpu", "workers": 0, **settings})


def read(file: Path | str) -> list[dict[str, str]]:
    with Path(file).open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


FILES = [*(f"new/{i}.jpg" for i in (0, 1, 2, 3, 4, 5, 6, 8)), "new/9.png", "new/deep/7.jpg"]


@pytest.mark.parametrize("settings", [{}, {"batch_size": 3}, {"batch_size": 3, "workers": 2}])
def test_the_file_says_what_the_model_says(untrained: Path, folder: Path, settings: dict[str, Any]) -> None:
    made = predict(config(untrained, folder, out=Path("far/off/a.csv"), **settings))
    assert repr(made) == "PredictedImages(10 images of 4 classes: far/off/a.csv)"
    rows, model = read("far/off/a.csv"), load_model(untrained)
    assert list(rows[0]) == ["path", "prediction", "probability"]
    assert [row["path"] for row in rows] == list(made.paths) == FILES
    assert [row["prediction"] for row in rows] == model.predict(FILES)
    expected = model.predict_proba(FILES)
    np.testing.assert_allclose(made.probabilities[:, 0], expected.max(axis=1), rtol=1e-4)
    np.testing.assert_allclose([float(row["probability"]) for row in rows], made.probabilities[:, 0], rtol=1e-5)
    assert [path.name for path in Path("far/off").iterdir()] == ["a.csv"]


def test_further_classes_follow_in_the_order_of_their_probabilities(untrained: Path, folder: Path) -> None:
    predict(config(untrained, folder, out="a.csv", top=4))
    expected = load_model(untrained).predict_proba(FILES)
    for row, probabilities in zip(read("a.csv"), expected, strict=True):
        places = ["", "_2", "_3", "_4"]
        assert list(row) == ["path", *(f"{name}{i}" for i in places for name in ("prediction", "probability"))]
        assert [row[f"prediction{i}"] for i in places] == ["abcd"[label] for label in np.argsort(-probabilities)]
        assert sum(float(row[f"probability{i}"]) for i in places) == pytest.approx(1, abs=1e-5)
    with pytest.raises(InputError, match="--top of at most 4, the classes; got 5"):
        predict(config(untrained, folder, top=5))


def test_without_a_name_the_file_is_named_for_run_and_images(untrained: Path, folder: Path, here: Path) -> None:
    run = here / "runs" / "my run"
    shutil.copytree(untrained, run / "model")
    file = predict(config(run, folder)).file
    assert predict(config(run / "model", folder)).file == predict(config(run, here / "new")).file == file
    assert re.fullmatch(r"runs/predict/my-run-new-[0-9a-f]{6}\.csv", str(file))
    assert len(read(file)) == 10
    other = predict(config(run, "new/0.jpg", "new/1.jpg")).file
    assert re.fullmatch(r"runs/predict/my-run-0\.jpg-[0-9a-f]{6}\.csv", str(other))


def test_images_that_are_called_like_others_get_a_file_of_their_own(untrained: Path, folder: Path) -> None:
    shutil.copytree(folder, "elsewhere/new")
    files = {predict(config(untrained, images)).file for images in ("new", "elsewhere/new", "elsewhere/../new")}
    assert len(files) == 2
    shutil.copytree(untrained, f"elsewhere/{untrained.name}")
    assert predict(config(Path("elsewhere", untrained.name), "new")).file not in files


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_images_that_cannot_be_read_are_named_and_nothing_is_written(
    untrained: Path, folder: Path, here: Path, batch_size: int
) -> None:
    for name in ("1.jpg", "deep/7.jpg"):
        (folder / name).write_bytes(b"broken")
    before = sorted(here.rglob("*"))
    with pytest.raises(InputError, match=r"(?s)2 of 10 that cannot be read:.*new/1\.jpg.*new/deep/7\.jpg"):
        predict(config(untrained, folder, batch_size=batch_size))
    assert sorted(here.rglob("*")) == before
    whole = load_model(untrained).predict([file for file in FILES if Path(file).read_bytes() != b"broken"])
    made = predict(config(untrained, folder, batch_size=batch_size, skip_corrupt=True, out="a.csv"))
    assert [row["prediction"] for row in read("a.csv")] == whole
    assert list(made.skipped) == ["new/1.jpg", "new/deep/7.jpg"]
    with pytest.raises(InputError, match="2 of 2 that cannot be read"):
        predict(config(untrained, "new/1.jpg", "new/deep/7.jpg", skip_corrupt=True))


def test_after_an_image_that_cannot_be_read_the_others_are_only_read(
    untrained: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "2.jpg").write_bytes(b"broken")
    seen: list[int] = []

    def count(model: TrainedClassifier, batch: torch.Tensor) -> None:
        seen.append(len(batch))

    def load(run: Path) -> TrainedClassifier:
        model = load_model(run)
        model.classifier.register_forward_pre_hook(lambda _, inputs: count(model, inputs[0]))
        return model

    monkeypatch.setattr("pipelines.prediction.load_model", load)
    with pytest.raises(InputError, match="1 of 10"):
        predict(config(untrained, folder, batch_size=2))
    assert seen == [2]


def test_outputs_that_are_not_finite_are_no_predictions(
    untrained: Path, folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(run: Path) -> TrainedClassifier:
        model = load_model(run)
        next(model.classifier.parameters()).data.fill_(float("nan"))
        return model

    monkeypatch.setattr("pipelines.prediction.load_model", load)
    with pytest.raises(RunError, match="outputs are not finite"):
        predict(config(untrained, folder))
    assert [path.name for path in here.iterdir()] == ["new"]


# The command


@pytest.mark.parametrize(
    ("words", "shown", "missing"),
    [
        (["new"], ["new/deep/7.jpg", "prediction"], "share"),
        (["new/0.jpg", "--top", "2"], [": 1 image →", "prediction 2", "% 2"], "new/1.jpg"),
        (["new", "many"], ["35 images", "share", "mean probability, %"], "new/0.jpg"),
    ],
)
def test_few_images_are_shown_one_by_one_and_many_by_class(
    untrained: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    words: Sequence[str],
    shown: Sequence[str],
    missing: str,
) -> None:
    Path("many").mkdir()
    for i in range(25):
        shutil.copy("new/0.jpg", f"many/{i}.jpg")
    assert main(["predict", str(untrained), *words, "--out", "a.csv", "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    words_shown = " ".join(captured.out.split())
    assert [text for text in shown if text not in words_shown] == []
    assert missing not in words_shown
    assert re.search(r"images?: a.csv", captured.err)
    assert "1 images" not in captured.out + captured.err


def test_json_has_the_rows_of_the_file_and_what_was_left_out(
    untrained: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "0.jpg").write_bytes(b"broken")
    words = ["predict", str(untrained), "new", "--skip-corrupt", "--json", "--out", "a.csv", "--device", "cpu"]
    assert main(words) == 0
    captured = capsys.readouterr()
    found, rows = json.loads(captured.out), read("a.csv")
    assert found["file"] == "a.csv"
    assert list(found["skipped"]) == ["new/0.jpg"]
    assert [(row["path"], row["prediction"]) for row in found["images"]] == [
        (row["path"], row["prediction"]) for row in rows
    ]
    assert "1 of 10 images cannot be read and are left out" in captured.err
    assert "new/0.jpg" in captured.err
