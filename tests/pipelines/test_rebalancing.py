"""`run`: the arms side by side on real JPEG files, what is selected, and what is not repeated."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import main
from pipelines import (
    BudgetConfig,
    DataConfig,
    EvaluateConfig,
    FilterConfig,
    GeneratorConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
    RebalanceConfig,
    evaluate,
    load_model,
    rebalance_and_train,
    rebalancing,
)
from pipelines.comparison import ARM_TITLES
from rebalance.errors import InputError

ARMS = ("ce", "rebalanced", "replay", "unfiltered", "synthetic")


def config(photos: Path, **changes: Any) -> RebalanceConfig:
    settings: dict[str, Any] = {
        "data": DataConfig(data=str(photos)),
        "model": ModelConfig(model="small_cnn"),
        "optimization": OptimizationConfig(updates=8, batch_size=16),
        "budget": BudgetConfig(max_images=20),
        "generator": GeneratorConfig(
            generator_updates=6, generator_batch_size=8, generator_channels=(8, 16), steps=2, sampling_batch=16
        ),
        "filter": FilterConfig(skip_gate=("distance",)),
        "seeds": 2,
        "place": PlaceConfig(device="cpu", report_to="none"),
    }
    return RebalanceConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished pipeline of all arms and two seeds; not to be changed."""
    place = PlaceConfig(device="cpu", report_to="none", output=tmp_path_factory.mktemp("pipeline"))
    return rebalance_and_train(config(photos, place=place)).folder


def test_every_arm_is_trained_with_every_seed_and_equal_updates(finished: Path) -> None:
    metrics = [json.loads(file.read_text()) for file in sorted(finished.glob("arms/*/seed-*/metrics.json"))]
    assert len(metrics) == len(ARMS) * 2
    assert {run["updates"] for run in metrics} == {8}
    assert {tuple(run["train_counts"]) for run in metrics} == {(7, 3, 16, 40)}
    synthetic = {
        arm: json.loads((finished / "arms" / arm / "seed-0" / "metrics.json").read_text())["synthetic_counts"]
        for arm in ARMS
    }
    assert synthetic["ce"] == synthetic["rebalanced"] == [0, 0, 0, 0]
    assert synthetic["replay"] == synthetic["unfiltered"] == synthetic["synthetic"]
    assert sum(synthetic["synthetic"]) > 0


@pytest.mark.parametrize(
    ("method", "augment", "expected"),
    [("supcon", "auto", "sim"), ("balanced_softmax", "auto", "auto"), ("supcon", "crop", "crop")],
)
def test_plain_cross_entropy_is_augmented_like_the_method_beside_it(
    method: str, augment: str, expected: str, photos: Path, tmp_path: Path
) -> None:
    settings = config(
        photos,
        data=DataConfig(data=str(photos), augment=augment),
        objective=ObjectiveConfig(method=method),
        optimization=OptimizationConfig(updates=2, batch_size=16),
        arms=("ce", "rebalanced"),
        seeds=1,
        place=PlaceConfig(device="cpu", report_to="none", output=tmp_path),
    )
    arms = rebalance_and_train(settings).folder / "arms"
    saved = {arm: yaml.safe_load((arms / arm / "seed-0" / "config.yaml").read_text()) for arm in ("ce", "rebalanced")}
    assert saved["ce"]["data"]["augment"] == expected
    assert saved["rebalanced"]["data"]["augment"] == augment


def test_comparison_has_intervals_and_plain_words(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics["arms"]) == set(ARMS)
    for figures in metrics["arms"].values():
        assert figures["balanced_accuracy"]["n"] == 2
        assert figures["balanced_accuracy"]["half_width"] is None
    assert len(metrics["words"]) == 5
    *judged, same = metrics["words"]
    assert all(line.endswith(": two seeds, so no judgement.") for line in judged)
    assert ": the same images as re-balanced + synthetic, unfiltered: " in same


def test_model_is_never_selected_by_the_test_split(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["selected"]["arm"] == "rebalanced"
    assert "test split is no judge" in metrics["selected"]["by"]
    first = json.loads((finished / "arms" / "rebalanced" / "seed-0" / "metrics.json").read_text())
    figures = evaluate(EvaluateConfig(run=finished, device="cpu"))
    assert figures["confusion"] == first["test"]["confusion"]
    assert load_model(finished).classes == tuple(metrics["classes"])


def test_report_is_one_file_with_all_arms(finished: Path) -> None:
    html = (finished / "report.html").read_text()
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", html)
    for arm in ("plain cross entropy", "re-balanced + replay", "re-balanced + synthetic, filtered"):
        assert arm in html
    assert html.count("data:image/png;base64,") >= 8
    assert "re-balanced + replay" in (finished / "report.md").read_text()
    assert set(json.loads((finished / "report.json").read_text())["arms"]) == set(ARMS)


def test_groups_without_a_class_are_not_available(finished: Path) -> None:
    markdown = (finished / "report.md").read_text()
    row = next(line for line in markdown.splitlines() if line.startswith("| plain cross entropy"))
    assert row.split("|")[3].strip() == "n/a"  # many-shot: no class has more than 100 images


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    photos: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "--model small_cnn --updates 8 --generator-updates 6 --generator-batch-size 8 --generator-channels 8 16"
    assert main(["run", str(photos), "--dry-run", *small.split(), "--sampling-batch", "16", "--max-minutes", "0"]) == 0
    assert not list(here.iterdir())
    shown = capsys.readouterr()
    assert "images to synthesize" in shown.out
    assert "what is left to do" in shown.out
    assert "without --dry-run this is refused:\n  expected a plan of at most 0 minutes (--max-minutes)" in shown.err
    settings = config(photos, dry_run=True)
    plan = rebalance_and_train(settings).metrics["plan"]
    assert [(part["title"], part["number"]) for part in plan] == [
        *((ARM_TITLES[arm], 2) for arm in ARMS),
        ("training of the generator", 1),
        ("sampling of images", 1),
    ]
    assert all(0 < part["minutes"] < 1 for part in plan)
    longer = rebalance_and_train(replace(settings, optimization=OptimizationConfig(updates=8000, batch_size=16)))
    assert longer.metrics["plan"][1]["minutes"] > 100 * plan[1]["minutes"]


def test_a_dry_run_of_what_was_begun_says_what_is_left(
    finished: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = PlaceConfig(device="cpu", report_to="none", output=finished.parents[1])
    before = sorted(str(path) for path in finished.rglob("*"))

    def left(**changes: Any) -> dict[str, int]:
        plan = rebalance_and_train(config(photos, **{"dry_run": True, "place": place, **changes})).metrics["plan"]
        return {part["title"]: part["number"] for part in plan}

    assert left() == {}
    assert "nothing is left to do" in capsys.readouterr().out
    assert left(seeds=3) == {ARM_TITLES[arm]: 1 for arm in ARMS}  # type: ignore[index]  # each is an arm
    again = left(place=replace(place, resume=False), arms=("synthetic",), seeds=1)
    assert again["training of the gates' features"] == again["training of the generator"] == 1
    assert sorted(str(path) for path in finished.rglob("*")) == before


def test_trainings_are_numbered_and_the_classes_shown_once_an_arm(
    photos: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = "--model small_cnn --updates 2 --batch-size 16 --arms rebalanced ce --seeds 2 --report-to none"
    assert main(["run", str(photos), *short.split()]) == 0
    shown = capsys.readouterr()
    titles = ("re-balanced", "re-balanced", "plain cross entropy", "plain cross entropy")
    for number, title in enumerate(titles, 1):
        assert f"training {number} of 4: {title}, seed {(number - 1) % 2}" in shown.err
    assert shown.out.count("drawn in epoch 1") == 2


def test_a_plan_counts_trainings_of_tuning_and_between_rounds(photos: Path, here: Path) -> None:
    def parts(**changes: Any) -> dict[str, int]:
        plan = rebalance_and_train(config(photos, dry_run=True, seeds=1, **changes)).metrics["plan"]
        return {part["title"]: part["number"] for part in plan}

    folds = parts(arms=("rebalanced", "synthetic"), tune_folds=3, tune=("0.3:0.9", "1:0.5"))
    assert folds["trainings to choose weight and share"] == 9
    assert folds["training of the generator"] == folds["sampling of images"] == 4
    assert ARM_TITLES["ce"] not in folds
    plain = parts(arms=("ce", "rebalanced"))
    assert list(plain) == [ARM_TITLES["ce"], ARM_TITLES["rebalanced"]]
    assert "trainings to choose weight and share" not in parts(arms=("synthetic",), tune_folds=3, tune=("none",))


def test_a_plan_of_rounds_has_a_training_after_each_but_the_last(here: Path) -> None:
    settings = config(here, data=DataConfig(data="digits", val_fraction=0.5, imbalance_factor=5), rounds=3, seeds=1)
    plan = rebalance_and_train(replace(settings, dry_run=True, arms=("synthetic",))).metrics["plan"]
    numbers = {part["title"]: part["number"] for part in plan}
    assert numbers["trainings between rounds"] == 2
    assert numbers["trainings to choose weight and share"] == 4
    assert numbers["training of the generator"] == 1
    assert numbers["sampling of images"] == 2
    assert numbers[ARM_TITLES["feedback"]] == 1


def test_what_is_done_is_not_repeated(finished: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(rebalancing, "train_in", fail)
    place = PlaceConfig(device="cpu", report_to="none", output=finished.parents[1])
    assert rebalance_and_train(config(photos, place=place)).folder == finished


def test_interrupted_pipeline_goes_on_and_ends_alike(
    finished: Path, photos: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = rebalancing.train_in
    done = 0

    def train_some(*arguments: Any, **options: Any) -> Any:
        nonlocal done
        done += 1
        if done == 6:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(rebalancing, "train_in", train_some)
        with pytest.raises(KeyboardInterrupt):
            rebalance_and_train(config(photos))
    result = rebalance_and_train(config(photos))
    assert result.metrics == json.loads((finished / "metrics.json").read_text())


def test_a_flat_folder_gets_a_test_split_and_says_so(photos: Path, here: Path) -> None:
    arms: Any = ("ce", "rebalanced")
    result = rebalance_and_train(config(photos, data=DataConfig(data=str(photos / "train")), seeds=1, arms=arms))
    run = json.loads((result.folder / "arms" / "ce" / "seed-0" / "metrics.json").read_text())
    assert run["test"]["support"] == [1, 1, 3, 8]
    assert run["train_counts"] == [6, 2, 13, 32]
    assert "one seed, so no judgement" in result.metrics["words"][0]


def test_validation_split_selects_the_arm(photos: Path, here: Path) -> None:
    data = DataConfig(data="digits", imbalance_factor=3, val_fraction=0.2)
    result = rebalance_and_train(config(photos, data=data, arms=("ce", "rebalanced"), seeds=1))
    selected = result.metrics["selected"]
    accuracy = selected["balanced_accuracy"]
    assert selected["by"] == "balanced accuracy on the validation split"
    assert accuracy[selected["arm"]] == max(accuracy.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": 0}, "--seeds of at least 1"),
        ({"arms": ()}, "different arms"),
        ({"select": "synthetic", "arms": ("ce",)}, "--select of an arm that is run"),
    ],
)
def test_settings_that_cannot_work_are_refused(photos: Path, here: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        rebalance_and_train(replace(config(photos), **changes))
    assert not (here / "runs").exists()


def test_too_dear_a_synthesis_is_refused_before_anything_is_trained(photos: Path, here: Path) -> None:
    with pytest.raises(InputError, match=r"at most 1e-09 minutes \(--max-minutes\)"):
        rebalance_and_train(config(photos, max_minutes=1e-9))
    assert not (here / "runs").exists()
