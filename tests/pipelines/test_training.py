"""`train`: run folders, resuming, selection, and what a training refuses."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipelines import (
    DataConfig,
    EvaluateConfig,
    MixingConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    TrainConfig,
    evaluate,
    load_model,
    train,
)
from pipelines.history import History
from rebalance.errors import InputError, RunError


def config(source: str | Path = "digits", **changes: Any) -> TrainConfig:
    """A training of a second, with changes to the groups of settings."""
    groups: dict[str, Any] = {
        "objective": {"method": "ce"},
        "optimization": {"updates": 12, "batch_size": 32},
        "place": {"device": "cpu", "report_to": "none", "checkpoint_updates": 5},
        "data": {},
        "model": {"model": "small_cnn"},
        "mixing": {},
    }
    extra = {name: changes.pop(name) for name in ("seed", "synthetic", "synthetic_set") if name in changes}
    for name, value in changes.items():
        groups[name] |= value
    return TrainConfig(
        data=DataConfig(data=str(source), **groups["data"]),
        model=ModelConfig(**groups["model"]),
        objective=ObjectiveConfig(**groups["objective"]),
        optimization=OptimizationConfig(**groups["optimization"]),
        mixing=MixingConfig(**groups["mixing"]),
        place=PlaceConfig(**groups["place"]),
        **extra,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "weights.safetensors")


def read_history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same_weights(a: Path, b: Path) -> None:
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


class StopError(Exception):
    """Stands for a kill."""


def interrupt_after(monkeypatch: pytest.MonkeyPatch, updates: int) -> None:
    add = History.add

    def add_or_stop(self: History, step: Any) -> None:
        if step.update > updates:
            raise StopError
        add(self, step)

    monkeypatch.setattr(History, "add", add_or_stop)


def test_run_folder_explains_itself(photos: Path, here: Path) -> None:
    result = train(config(photos, place={"report_to": "tensorboard"}))
    assert repr(result) == f"TrainResult(folder={result.folder!r})"
    assert result.folder == Path("runs/train/my-photos-ce")
    names = {path.name for path in result.folder.iterdir()}
    assert names >= {"config.yaml", "environment.json", "classes.json", "history.csv", "metrics.json", "checkpoints"}
    assert list((result.folder / "tensorboard").rglob("events.*"))
    metrics = json.loads((result.folder / "metrics.json").read_text())
    assert metrics == result.metrics
    assert metrics["classes"] == ["f.o.u.r", "tail", "two words", "круг"]
    assert metrics["train_counts"] == [7, 3, 16, 40]
    assert metrics["test"]["support"] == [10, 10, 10, 10]
    rows = read_history(result.folder)
    assert [int(row["updates"]) for row in rows] == [3, 6, 9, 12]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])


def test_saved_model_gives_the_reported_figures(photos: Path, here: Path) -> None:
    result = train(config(photos))
    figures = evaluate(EvaluateConfig(run=result.folder, device="cpu"))
    assert figures["confusion"] == result.metrics["test"]["confusion"]
    assert figures["ece"] == pytest.approx(result.metrics["test"]["ece"], abs=1e-6)
    model = load_model(result.folder)
    files = sorted((photos / "test").rglob("*.jpg"))
    right = [name == file.parent.name for name, file in zip(model.predict(files), files, strict=True)]
    assert np.mean(right) == pytest.approx(result.metrics["test"]["accuracy"])


def test_interrupted_run_ends_like_an_undisturbed_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(config(place={"experiment": "whole"}, optimization={"model_ema": 0.9}))
    broken = config(place={"experiment": "broken"}, optimization={"model_ema": 0.9})
    with monkeypatch.context() as patch:
        interrupt_after(patch, 8)
        with pytest.raises(StopError):
            train(broken)
    assert (here / "runs/train/broken/checkpoints/update_0000005").is_dir()
    resumed = train(broken)
    assert resumed.metrics == whole.metrics
    assert_same_weights(whole.folder, resumed.folder)
    columns = ("epoch", "updates", "lr", "train_loss")
    histories = [read_history(run.folder) for run in (whole, resumed)]
    assert [[row[c] for c in columns] for row in histories[0]] == [[row[c] for c in columns] for row in histories[1]]


@pytest.mark.parametrize(
    ("number", "error", "code"), [(signal.SIGINT, KeyboardInterrupt, None), (signal.SIGTERM, SystemExit, 143)]
)
def test_what_was_done_before_a_signal_is_kept(
    number: int, error: type[BaseException], code: int | None, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config(place={"experiment": "whole"}))
    add = History.add

    def add_and_signal(self: History, step: Any) -> None:
        add(self, step)
        if step.update == 5:
            os.kill(os.getpid(), number)

    settings = config(place={"experiment": "broken", "checkpoint_updates": 1000})
    with monkeypatch.context() as patch:
        patch.setattr(History, "add", add_and_signal)
        with pytest.raises(error) as raised:
            train(settings)
    assert code is None or raised.value.code == code  # type: ignore[attr-defined]  # a SystemExit
    folder = here / "runs/train/broken"
    assert json.loads((folder / "checkpoints/last.json").read_text()) == {"checkpoint": "update_0000005"}
    assert_same_weights(train(settings).folder, whole.folder)


def test_finished_run_is_not_repeated(here: Path) -> None:
    first = train(config())
    written = (first.folder / "model" / "weights.safetensors").stat().st_mtime_ns
    assert train(config()).metrics == first.metrics
    assert (first.folder / "model" / "weights.safetensors").stat().st_mtime_ns == written


def test_changed_configuration_is_refused_with_the_difference(here: Path) -> None:
    folder = train(config()).folder
    before = (folder / "config.yaml").read_text()
    with pytest.raises(InputError, match=r"optimization\.batch_size: 32 → 16"):
        train(config(optimization={"batch_size": 16}))
    assert (folder / "config.yaml").read_text() == before
    again = train(config(optimization={"batch_size": 16}, place={"resume": False}))
    assert "batch_size: 16" in (again.folder / "config.yaml").read_text()


def test_changed_images_are_refused(photos: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    copy = here / "copy"
    shutil.copytree(photos, copy)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 6)
        with pytest.raises(StopError):
            train(config(copy))
    next((copy / "train" / "tail").iterdir()).unlink()
    with pytest.raises(InputError, match=r"the images that .* was begun with"):
        train(config(copy))


@pytest.mark.parametrize(
    "optimization",
    [
        {"grad_accum_steps": 3},
        {"amp": "bf16"},
        {"opt": "adamw", "lr": 3e-3, "clip_grad": 1.0},
        {"sched": "step", "warmup_epochs": 0},
        {"model_ema": 0.9, "channels_last": False},
        {"sam": 0.2, "sam_from": 0.25},
    ],
    ids=str,
)
def test_every_way_of_optimising_learns(here: Path, optimization: dict[str, Any]) -> None:
    data = {"imbalance_factor": 1}
    result = train(config(data=data, optimization={"updates": 40, "batch_size": 64, **optimization}))
    assert result.metrics["test"]["balanced_accuracy"] > 0.5


def test_workers_give_what_memory_gives(photos: Path, here: Path) -> None:
    resident = train(config(photos, place={"experiment": "resident"}))
    workers = train(config(photos, place={"experiment": "workers"}, data={"cache_gb": 0.0, "workers": 1}))
    assert workers.metrics == resident.metrics
    assert_same_weights(workers.folder, resident.folder)


def test_replayed_images_of_weight_zero_change_only_what_is_drawn(photos: Path, here: Path) -> None:
    replay = {"synthetic": photos / "test", "synthetic_set": "replay"}
    result = train(config(photos, **replay, mixing={"synthetic_weight": 0.0}))
    assert result.metrics["synthetic_counts"] == [10, 10, 10, 10]
    heavier = train(config(photos, **replay, mixing={"synthetic_weight": 1.0}, place={"experiment": "heavier"}))
    assert any(
        not torch.equal(a, b)
        for a, b in zip(weights(result.folder).values(), weights(heavier.folder).values(), strict=True)
    )


def test_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(here: Path) -> None:
    with pytest.raises(RunError, match="lower --lr"):
        train(config(optimization={"lr": 1e18, "warmup_epochs": 0}))
    assert not (here / "runs/train/digits-ce/metrics.json").exists()


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ({"sampler_rule": "inverse", "sampler_strength": 0.0}, "--sampler-strength 0"),
        ({"loss_rule": "inverse", "loss_strength": 0.0}, "change nothing"),
        ({"loss_rule": "inverse", "loss_schedule": "deferred:1"}, "never starts"),
    ],
)
def test_warns_of_a_choice_that_does_nothing(
    here: Path, caplog: pytest.LogCaptureFixture, objective: dict[str, Any], words: str
) -> None:
    with caplog.at_level(logging.WARNING, logger="rebalance"):
        train(config(objective=objective, optimization={"updates": 2}))
    assert words in caplog.text


def test_warns_of_balanced_data(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="rebalance"):
        train(
            config(objective={"method": "balanced_softmax"}, data={"imbalance_factor": 1}, optimization={"updates": 2})
        )
    assert "re-balancing changes nothing" in caplog.text


def test_learning_rate_follows_the_batch(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="rebalance"):
        train(config(optimization={"updates": 2, "batch_size": 64}))
    assert "2 updates of 64 images (1 epoch), learning rate 0.05 (base 0.2 × 64 / 256)" in caplog.text
    assert "warm-up: 0.1 epochs, a quarter of training, instead of 5" in caplog.text


def test_a_batch_that_holds_all_images_is_said(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="rebalance"):
        train(config(optimization={"updates": 8, "batch_size": 512, "warmup_epochs": 2}))
    assert "8 updates of 305 images, which are all, fewer than --batch-size 512 (8 epochs)" in caplog.text
    assert "warm-up:" not in caplog.text


def test_corrupt_images_are_refused_or_recorded(photos: Path, here: Path) -> None:
    copy = here / "copy"
    shutil.copytree(photos, copy)
    bad = [copy / "train" / "круг" / name for name in ("0.jpg", "1.jpg")]
    bad[0].write_bytes(b"no image")
    bad[1].unlink()
    bad[1].symlink_to("nowhere.jpg")
    with pytest.raises(InputError, match="2 of 66 that cannot be read"):
        train(config(copy))
    assert not (here / "runs").exists()
    result = train(config(copy, data={"skip_corrupt": True}))
    assert json.loads((result.folder / "classes.json").read_text())["skipped"] == list(map(str, bad))
    assert sum(result.metrics["train_counts"]) == 64


def test_the_callers_random_numbers_are_left_alone(here: Path) -> None:
    expected = torch.rand(3, generator=torch.Generator().manual_seed(7))
    torch.manual_seed(7)
    train(config(optimization={"updates": 2}))
    assert torch.equal(torch.rand(3), expected)


def test_another_seed_has_another_result_and_a_folder_of_its_own(here: Path) -> None:
    first, same = (train(config(place={"experiment": name})) for name in "ab")
    other = train(replace(config(), seed=1))
    assert_same_weights(first.folder, same.folder)
    assert other.folder.name.endswith("-seed1")
    assert other.metrics["test"] != first.metrics["test"]
