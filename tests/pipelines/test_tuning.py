"""How synthetic images take part is chosen by validation, and no held-out image reaches a candidate."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import (
    BudgetConfig,
    DataConfig,
    FilterConfig,
    GeneratorConfig,
    ModelConfig,
    OptimizationConfig,
    PlaceConfig,
    RebalanceConfig,
    rebalance_and_train,
)
from pipelines.open_data import OpenData, open_data
from pipelines.session import start_session
from pipelines.tuning import WITHOUT, _folds, parse_candidates, tune
from rebalance.errors import InputError

ARMS: Any = ("ce", "rebalanced", "synthetic")


def config(data: DataConfig, **changes: Any) -> RebalanceConfig:
    settings: dict[str, Any] = {
        "model": ModelConfig(model="small_cnn"),
        "optimization": OptimizationConfig(updates=6, batch_size=16),
        "budget": BudgetConfig(max_images=20),
        "generator": GeneratorConfig(
            generator_updates=4, generator_batch_size=8, generator_channels=(8, 16), steps=2, sampling_batch=16
        ),
        "filter": FilterConfig(skip_gate=("distance",)),
        "arms": ARMS,
        "seeds": 1,
        "tune": ("0.3:0.9", "1:0.5"),
        "place": PlaceConfig(device="cpu", report_to="none"),
    }
    return RebalanceConfig(data=data, **{**settings, **changes})


def flat(photos: Path) -> DataConfig:
    return DataConfig(data=str(photos), image_size=16)


def figures(recall: list[float], support: list[int]) -> dict[str, Any]:
    return {"recall": recall, "support": support}


def test_candidates_are_read_from_weight_and_share(photos: Path) -> None:
    candidates = parse_candidates(config(flat(photos)))
    assert [(one.synthetic_weight, one.real_share) for one in candidates.values()] == [(0.3, 0.9), (1, 0.5)]


def test_the_word_none_alone_is_no_candidate(photos: Path) -> None:
    assert parse_candidates(config(flat(photos), tune=("none",))) == {}
    with pytest.raises(InputError, match="got 'none'"):
        parse_candidates(config(flat(photos), tune=("none", "1:0.5")))


@pytest.mark.parametrize("text", ["0.3", "a:b", "0:0.5", "1:1.5", "-1:0.5", "nan:0.5"])
def test_candidates_that_are_none_are_refused(photos: Path, text: str) -> None:
    with pytest.raises(InputError, match="--tune WEIGHT:SHARE"):
        parse_candidates(config(flat(photos), tune=(text,)))


def test_one_fold_is_refused_before_any_work(photos: Path, here: Path) -> None:
    with pytest.raises(InputError, match="--tune-folds of 2 or more"):
        rebalance_and_train(config(flat(photos), tune_folds=1))
    assert not (here / "runs").exists()


def test_without_anything_to_judge_by_nothing_is_tuned(photos: Path, here: Path) -> None:
    settings = config(flat(photos))
    opened = open_data(settings.data, start_session("cpu").device)

    def never(*_: object) -> dict[str, Any]:
        raise AssertionError("trained")

    assert tune(here / "tuning", settings, opened, here, never, never) is None  # type: ignore[arg-type]


def test_folds_are_disjoint_whole_and_seen_by_no_generator_of_theirs(photos: Path, here: Path) -> None:
    settings = config(flat(photos), tune_folds=3)
    opened = open_data(settings.data, start_session("cpu").device)
    held: list[list[str]] = []
    trained: list[tuple[Path, set[str]]] = []
    generated: list[set[str]] = []

    def train(folder: Path, config: RebalanceConfig, part: OpenData, images: Path | None) -> dict[str, Any]:
        names, test = names_in(part, "train"), names_in(part, "test")
        assert not names & test
        trained.append((folder, names))
        if images is None:
            held.append(sorted(test))
        better = config.mixing.synthetic_weight == 1 and images is not None
        n = len(part.classes)
        return {"test": figures([1.0 if better else 0.0] * n, part.tables["test"].table.counts.tolist())}

    def synthesize(folder: Path, config: RebalanceConfig, part: OpenData, features: Path) -> None:
        generated.append(names_in(part, "train"))

    tuning = tune(here / "tuning", settings, opened, here, train, synthesize)
    assert tuning is not None
    assert tuning.helped
    assert tuning.best == "weight 1, real share 0.5"
    assert tuning.mixing.real_share == 0.5
    assert len(generated) == 3
    once = [name for fold in held[::2] for name in fold]
    assert len(once) == len(set(once)) == len(opened.train.table)
    assert all(generated[k].isdisjoint(held[2 * k]) for k in range(3))
    assert json.loads((here / "tuning" / "tuning.json").read_text())["helped"]


def test_folds_keep_copies_of_an_image_together_and_a_class_of_nothing_else_trains(photos: Path, here: Path) -> None:
    data = here / "photos"
    shutil.copytree(photos / "train", data)
    for i in range(4):
        shutil.copy(data / "two words" / "0.jpg", data / "two words" / f"copy {i}.jpg")
        shutil.copy(photos / "train" / "tail" / "0.jpg", data / "tail" / f"{i}.jpg")
    settings = config(flat(data), tune_folds=3)
    opened = open_data(settings.data, start_session("cpu").device)
    folds = list(_folds(opened, settings))
    copies = {str(data / "two words" / name) for name in ("0.jpg", *(f"copy {i}.jpg" for i in range(4)))}
    assert [len(copies & names_in(fold, "test")) for fold in folds].count(5) == 1
    assert all(len(copies & names_in(fold, "test")) in (0, 5) for fold in folds)
    assert all(sum("/tail/" in name for name in names_in(fold, "train")) == 4 for fold in folds)
    plain = open_data(DataConfig(data=str(photos), image_size=16), start_session("cpu").device)
    marks = [next(_folds(data, settings)).fingerprint.removeprefix(data.fingerprint) for data in (plain, opened)]
    assert marks == [" fold 0 of 3", " fold 0 of 3, copies together"], "an earlier version had other folds of copies"


def names_in(opened: OpenData, split: str) -> set[str]:
    return {str(image) for image in opened.tables[split].table.images}


def test_no_candidate_that_is_better_keeps_the_configured_settings(photos: Path, here: Path) -> None:
    settings = config(flat(photos), tune_folds=2)
    opened = open_data(settings.data, start_session("cpu").device)

    def train(folder: Path, config: RebalanceConfig, part: OpenData, images: Path | None) -> dict[str, Any]:
        n = len(part.classes)
        return {"test": figures([0.5 if images is None else 0.4] * n, [4] * n)}

    tuning = tune(here / "tuning", settings, opened, here, train, lambda *_: None)
    assert tuning is not None
    assert not tuning.helped
    assert tuning.best == WITHOUT
    assert tuning.mixing == settings.mixing


def test_recalls_of_folds_are_pooled_by_images(photos: Path, here: Path) -> None:
    """A class that a fold holds nothing of counts in the others alone."""
    settings = config(flat(photos), tune_folds=2, tune=("1:0.5",))
    opened = open_data(settings.data, start_session("cpu").device)
    parts = iter([figures([1.0, np.nan], [3, 0]), figures([0.0, 0.5], [1, 2])])

    def train(folder: Path, config: RebalanceConfig, part: OpenData, images: Path | None) -> dict[str, Any]:
        if folder.name == "without":
            train.last = next(parts) if getattr(train, "fold", None) != folder.parent else train.last  # type: ignore[attr-defined]
            train.fold = folder.parent  # type: ignore[attr-defined]
        return {"test": train.last}  # type: ignore[attr-defined]

    tuning = tune(here / "tuning", settings, opened, here, train, lambda *_: None)
    assert tuning is not None
    assert tuning.accuracy[WITHOUT] == pytest.approx((0.75 + 0.5) / 2)


def test_pipeline_with_folds_takes_the_best_candidate(photos: Path, here: Path) -> None:
    result = rebalance_and_train(config(flat(photos), tune_folds=2))
    tuning = result.metrics["tuning"]
    assert tuning["by"] == "2 folds of the training split"
    assert set(tuning["accuracy"]) == {WITHOUT, "weight 0.3, real share 0.9", "weight 1, real share 0.5"}
    assert tuning["accuracy"][tuning["best"]] == max(tuning["accuracy"].values())
    selected = "synthetic" if tuning["helped"] else "rebalanced"
    assert result.metrics["selected"]["arm"] == selected
    trained = (result.folder / "arms" / "synthetic" / "seed-0" / "config.yaml").read_text()
    assert f"synthetic_weight: {tuning['mixing']['synthetic_weight']}" in trained
    again = rebalance_and_train(replace(config(flat(photos), tune_folds=2)))
    assert again.metrics == result.metrics


def test_pipeline_with_a_validation_split_judges_on_it(here: Path) -> None:
    data = DataConfig(data="digits", imbalance_factor=3, val_fraction=0.2)
    result = rebalance_and_train(config(data))
    assert result.metrics["tuning"]["by"] == "the validation split"
