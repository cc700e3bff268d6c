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
    told = rf"no such path: photos, which {run}/config.yaml names; .*ln -s NEW photos; .*rebalance evaluate RUN DATA"
    with pytest.raises(InputError, match=told):
        evaluate(EvaluateConfig(run=run, device="cpu"))
    with pytest.raises(InputError, match=told):
        retrain(RetrainConfig(run=run, method="ncm", place=PlaceConfig(device="cpu", report_to="none", output=here)))
    with pytest.raises(InputError, match=r"no such path: photos, which .*first_stage.yaml names"):
        evaluate(EvaluateConfig(run=here / "second/retrain/photos-balanced_mixup-ncm", device="cpu"))
    assert evaluate(EvaluateConfig(run=run, data=str(here / "moved"), device="cpu"))["n_images"] == 40


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


def test_images_that_were_trained_on_are_warned_of(
    photos: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos / "train", here / "flat")
    words = "--updates 2 --batch-size 16 --model small_cnn --report-to none --device cpu"
    assert main(["train", "flat", "--test-fraction", "0.2", *words.split()]) == 0

    def warnings(run: str, data: Path | str) -> list[str]:
        capsys.readouterr()
        assert main(["evaluate", run, str(data), "--device", "cpu"]) == 0
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]

    run = "runs/train/flat-balanced_mixup"
    own = f"figures on them say little of new ones: `rebalance evaluate {run}` measures on what it held out"
    told = [f"warning: {run} was trained on 53 of these 66 images, and {own}"]
    assert warnings(run, "flat") == told
    (here / "link").symlink_to(here / "flat")
    assert warnings(run, "link") == told
    assert warnings(run, photos / "test") == []
    assert warnings(f"{run}/model", "flat") == []
    (here / "link").unlink()
    (here / "flat").rename(here / "moved")
    assert warnings(run, "moved") == told
    next((here / "moved").rglob("*.jpg")).unlink()
    assert warnings(run, "moved") == []

    assert main(["train", str(photos / "train"), *words.split(), "--experiment", "all"]) == 0
    (line,) = warnings("runs/train/all", photos / "train")
    assert "trained on 66 of these 66 images, and" in line
    assert line.endswith(": name a folder of others")
    assert main(["train", str(photos), *words.split()]) == 0
    assert warnings("runs/train/my-photos-balanced_mixup", photos) == []


def test_training_data_that_cannot_be_read_do_not_stop_an_evaluation_on_others(
    photos: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(photos, here / "photos")
    words = "train photos --updates 2 --batch-size 16 --model small_cnn --report-to none --device cpu"
    assert main(words.split()) == 0

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pipelines.trained_runs.own_splits", refuse)
    settings = EvaluateConfig(run=Path("runs/train/photos-balanced_mixup"), data=str(photos / "test"), device="cpu")
    assert evaluate(settings)["n_images"] == 40


def test_other_images_are_not_taken_for_a_run_s_own_where_it_does_not_know_them(
    photos: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, here / "photos")
    words = "train photos --updates 2 --batch-size 16 --model small_cnn --report-to none --device cpu"
    assert main(words.split()) == 0
    run = here / "runs" / "train" / "photos-balanced_mixup"
    known = json.loads((run / "classes.json").read_text())
    (run / "classes.json").write_text(json.dumps({**known, "fingerprint": ""}))
    shutil.rmtree(here / "photos")
    capsys.readouterr()
    assert main(["evaluate", str(run), str(photos / "train"), "--device", "cpu"]) == 0
    assert "was trained on" not in capsys.readouterr().err


def test_that_there_will_be_no_figures_is_said_before_training(
    photos: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--updates 2 --batch-size 16 --model small_cnn --report-to none --device cpu"
    for data, said in ((photos / "train", True), (photos, False)):
        assert main(["train", str(data), *words.split()]) == 0
        before, _, _ = capsys.readouterr().err.partition("run folder: ")
        assert ("no split to measure on, so there will be no figures" in before) == said
