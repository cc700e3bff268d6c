"""The data of a run, looked for again: from elsewhere, changed since, or under the name of others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli import main
from pipelines import (
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    OptimizationConfig,
    PlaceConfig,
    RetrainConfig,
    TrainConfig,
    evaluate,
    retrain,
    train,
)
from rebalance.errors import InputError


def test_relative_data_are_found_from_elsewhere(photos: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(photos, here / "photos")
    words = "train photos --updates 2 --batch-size 16 --model small_cnn --report-to none --device cpu"
    assert main(words.split()) == 0
    monkeypatch.chdir(here / "runs")
    run = Path("train") / "photos-balanced_mixup"
    assert evaluate(EvaluateConfig(run=run, device="cpu"))["n_images"] == 40
    place = PlaceConfig(device="cpu", report_to="none", output=here / "second")
    assert retrain(RetrainConfig(run=run, method="ncm", place=place)).metrics["test"]["n_images"] == 40
    (here / "photos").rename(here / "moved")
    with pytest.raises(InputError, match="no such path: photos"):
        evaluate(EvaluateConfig(run=run, device="cpu"))


def test_embedded_data_are_not_a_folder_of_their_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main("train digits --updates 2 --batch-size 16 --report-to none --device cpu".split()) == 0
    (here / "digits").mkdir()
    monkeypatch.chdir(here / "runs")
    assert evaluate(EvaluateConfig(run=Path("train/digits-balanced_mixup"), device="cpu"))["n_images"] == 697


def test_images_that_changed_are_not_measured_as_if_they_were_held_out(photos: Path, here: Path) -> None:
    data = here / "flat"
    shutil.copytree(photos / "train", data)
    config = TrainConfig(
        data=DataConfig(data=str(data), test_fraction=0.2),
        model=ModelConfig(model="small_cnn"),
        optimization=OptimizationConfig(updates=2, batch_size=16),
        place=PlaceConfig(device="cpu", report_to="none"),
    )
    run = train(config).folder
    assert evaluate(EvaluateConfig(run=run, device="cpu"))["n_images"] > 0
    shutil.copy(next((photos / "test" / "tail").iterdir()), data / "tail" / "a.jpg")
    with pytest.raises(InputError, match=r"the images that .* was trained on; got others in .*: some were added"):
        evaluate(EvaluateConfig(run=run, device="cpu"))
    with pytest.raises(InputError, match=r"the images that .* was trained on"):
        retrain(RetrainConfig(run=run, place=config.place))
    assert evaluate(EvaluateConfig(run=run, data=str(photos / "test"), device="cpu"))["n_images"] == 40
    saved = json.loads((run / "classes.json").read_text())
    (run / "classes.json").write_text(json.dumps({**saved, "fingerprint": ""}))  # of an earlier version
    assert evaluate(EvaluateConfig(run=run, device="cpu"))["n_images"] > 0


def test_an_image_that_went_bad_since_is_refused_or_left_out(photos: Path, here: Path) -> None:
    shutil.copytree(photos, here / "photos")
    words = "train photos --updates 2 --batch-size 16 --model small_cnn --report-to none --device cpu"
    assert main(words.split()) == 0
    run = here / "runs" / "train" / "photos-balanced_mixup"
    bad = next((here / "photos" / "test").rglob("*.jpg"))
    bad.write_bytes(bytes(bad.stat().st_size))
    with pytest.raises(InputError, match=bad.name):
        evaluate(EvaluateConfig(run=run, device="cpu"))
    assert evaluate(EvaluateConfig(run=run, skip_corrupt=True, device="cpu"))["n_images"] == 39
    assert main([*words.split(), "--skip-corrupt", "--experiment", "lenient"]) == 0
    assert evaluate(EvaluateConfig(run=run.parent / "lenient", device="cpu"))["n_images"] == 39


def test_data_of_the_same_name_elsewhere_are_not_taken(
    photos: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(photos, here / "photos")
    words = "train photos --updates 2 --batch-size 16 --model small_cnn --report-to none --device cpu"
    assert main(words.split()) == 0
    for split in ("train", "test"):
        shutil.copytree(photos / split / "tail", here / "other" / "photos" / split / "tail")
    monkeypatch.chdir(here / "other")
    run = here / "runs" / "train" / "photos-balanced_mixup"
    assert evaluate(EvaluateConfig(run=run, device="cpu"))["n_images"] == 40
