"""Run folders → what a report shows."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.comparison import ARM_TITLES, Comparison, compare
from pipelines.config import COMMANDS
from pipelines.config_files import from_dict
from pipelines.config_groups import ObjectiveConfig
from pipelines.report_notes import report_notes
from pipelines.runs import read_first_stage, read_run_config, with_defaults
from pipelines.synthesis_report import SynthesisData, read_synthesis
from pipelines.trained_runs import training_of
from rebalance.counts import FloatArray, Group
from rebalance.errors import InputError
from rebalance.files import read_json

Seeds = tuple[int, ...]


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows, by arm; an arm is a training, or several that differ in their seed.

    Args:
        title: What the report is of.
        classes: Class names, by id.
        groups: Many, medium or few, by class.
        counts: Real training images of each class.
        synthetic_counts: Synthetic training images of each class, of the arm that has most.
        split: The split that figures are of.
        metrics: Arm → metrics of each seed.
        histories: Arm → epochs of its first seed.
        comparison: Means, intervals, differences.
        synthesis: The synthesis, if there was one.
        tuning: How the share and weight of synthetic images were found, if they were.
        feedback: What each round gave to each class, if there were rounds.
        pictures: What methods have to show, what and of which arm, and file.
        selected: Which arm became `model/`, and by what.
        config: Settings.
        environment: Versions and machine.
        notes: What the reader should know first.
        thresholds: Real training images beyond which a class is many-shot, and below which it is few-shot.
    """

    title: str
    classes: tuple[str, ...]
    groups: tuple[Group, ...]
    counts: tuple[int, ...]
    synthetic_counts: tuple[int, ...]
    split: str
    metrics: dict[str, list[dict[str, Any]]]
    histories: dict[str, list[dict[str, float]]]
    comparison: Comparison
    synthesis: SynthesisData | None
    tuning: dict[str, Any] | None
    feedback: dict[str, Any] | None
    pictures: tuple[tuple[str, Path], ...]
    selected: dict[str, Any] | None
    config: dict[str, Any]
    environment: dict[str, Any]
    notes: tuple[str, ...]
    thresholds: tuple[int, int]

    def recall(self, arm: str) -> list[float | None]:
        """Accuracy of each class, mean over the seeds; None without a test image."""
        rows = [[np.nan if value is None else value for value in seed["recall"]] for seed in self.metrics[arm]]
        return [None if np.isnan(value) else float(value) for value in np.mean(rows, axis=0)]

    def total(self, arm: str, name: str) -> FloatArray:
        """Sum over the seeds of an array among the metrics, such as the confusion matrix."""
        arrays = [np.asarray(seed[name], dtype=np.float64) for seed in self.metrics[arm]]
        return np.asarray(np.sum(arrays, axis=0))


def read_report_data(folders: Sequence[Path]) -> ReportData:
    """What the run folders hold.

    Raises:
        InputError: No run folder, an unfinished run, or runs on different classes.
    """
    if not folders:
        raise InputError("a run folder", "none", "give one or more after the command")
    if len(folders) == 1 and read_run_config(folders[0])["command"] == "run":
        return _of_pipeline(folders[0])
    return _of_trainings(folders)


def _of_pipeline(folder: Path) -> ReportData:
    config = read_run_config(folder)
    seeds = range(config["seed"], config["seed"] + config["seeds"])
    trainings = {
        ARM_TITLES[arm]: {seed: folder / "arms" / arm / f"seed-{seed}" for seed in seeds} for arm in config["arms"]
    }
    whole = read_json(folder / "metrics.json") if (folder / "metrics.json").exists() else {}
    synthesis = folder / "synthesis" if (folder / "synthesis" / "metrics.json").exists() else None
    return _collect(
        f"{Path(config['data']['data']).name}, {from_dict(ObjectiveConfig, config['objective']).recipe}",
        trainings,
        config,
        synthesis,
        whole,
        folder,
    )


def _of_trainings(folders: Sequence[Path]) -> ReportData:
    """Trainings that differ in their seed alone are one arm, and so are second stages of such trainings."""
    arms: dict[str, list[tuple[Seeds, Path]]] = {}
    names: dict[str, str] = {}
    shown: dict[str, dict[str, Any]] = {}
    own: dict[str, Any] = {}
    config: dict[str, Any] = {}
    for folder in folders:
        own, config = read_run_config(folder), read_first_stage(folder)
        if own["command"] not in ("train", "retrain"):
            raise InputError(
                "runs of `rebalance train` and `rebalance retrain`, or one of `rebalance run`",
                f"{folder} of {own['command']}",
                "report on it alone",
            )
        settings = [_without_seed(stage) for stage in (own, config)]
        title = re.sub(r"-seed-?\d+(?=-|$)", "", folder.name)  # -seed1-crt is a second stage of such a training
        name = names.setdefault(json.dumps(settings, sort_keys=True), _unused(title, arms))
        arms.setdefault(name, []).append((_seeds(own, config), folder))
        shown[name] = config if own["command"] == "train" else {**own, "first_stage": config}
    synthesis = Path(config["synthetic"]) if config.get("synthetic") else None
    if synthesis is not None and not (synthesis / "metrics.json").exists():
        synthesis = None
    settings_shown = next(iter(shown.values())) if len(shown) == 1 else shown
    trainings = _by_seed(arms)
    return _collect(Path(config["data"]["data"]).name, trainings, settings_shown, synthesis, {}, folders[0])


def _seeds(own: Mapping[str, Any], config: Mapping[str, Any]) -> Seeds:
    """Of the first stage, of the last one, and of the first one's teacher."""
    first, last, teacher = config["seed"], own["seed"], _teacher(config)
    return first, first if last is None else last, first if teacher is None else teacher["seed"]


def _by_seed(arms: Mapping[str, Sequence[tuple[Seeds, Path]]]) -> dict[str, dict[Seeds, Path]]:
    """Runs of each arm by as few of their seeds as tell them apart in every arm, so that arms can be paired."""
    for n in range(1, 4):
        found = {arm: {seeds[:n]: folder for seeds, folder in runs} for arm, runs in arms.items()}
        if all(len(found[arm]) == len(runs) for arm, runs in arms.items()):
            return found
    alike: dict[tuple[str, Seeds], Path] = {}
    for arm, runs in arms.items():
        for seeds, folder in runs:
            if (other := alike.setdefault((arm, seeds), folder)) is not folder:
                raise InputError("each seed once", f"{other} and {folder}, both of seed {seeds[0]}", "leave out one")
    raise AssertionError("with all seeds some arm has two runs alike")


def _without_seed(stage: dict[str, Any]) -> dict[str, Any]:
    """The settings that trainings of one arm share; the settings of a teacher in place of where it is."""
    whole = with_defaults(stage, COMMANDS[stage["command"]])
    settings = {name: value for name, value in whole.items() if name not in ("seed", "place", "run")}
    if "data" in settings:  # bounds of groups train nothing
        settings["data"] = {name: value for name, value in settings["data"].items() if name not in ("many", "few")}
    teacher = _teacher(stage)
    if teacher is None:
        return settings
    return {**settings, "objective": {**settings["objective"], "teacher": _without_seed(teacher)}}


def _teacher(stage: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings of a training's teacher, where it has one that is still there."""
    teacher = (stage.get("objective") or {}).get("teacher")
    if teacher is None or not (Path(teacher) / "config.yaml").is_file():
        return None
    return read_run_config(training_of(Path(teacher)))


def _unused(name: str, taken: Mapping[str, object]) -> str:
    number = 2
    wanted = name
    while name in taken:
        name, number = f"{wanted} ({number})", number + 1
    return name


def _collect(
    title: str,
    trainings: Mapping[str, Mapping[Any, Path]],
    config: dict[str, Any],
    synthesis: Path | None,
    whole: Mapping[str, Any],
    folder: Path,
) -> ReportData:
    runs = {arm: [_finished(run) for run in runs.values()] for arm, runs in trainings.items()}
    first = next(iter(runs.values()))[0]
    for arm, seeds in runs.items():
        for run in seeds:
            if run["classes"] != first["classes"]:
                raise InputError("runs on the same classes", f"{arm} with others", "report on them one by one")
    split = "test" if all("test" in run for seeds in runs.values() for run in seeds) else "val"
    if not all(split in run for seeds in runs.values() for run in seeds):
        raise InputError("runs with a test or a validation split", title, "train with --test-fraction 0.2, say")
    metrics = {arm: [run[split] for run in seeds] for arm, seeds in runs.items()}
    most = max((run for seeds in runs.values() for run in seeds), key=lambda run: sum(run["synthetic_counts"]))
    by_seed = {arm: dict(zip(trainings[arm], seeds, strict=True)) for arm, seeds in metrics.items()}
    others: list[str] = []
    unpaired: list[str] = []
    pipeline = config.get("command") == "run"
    if pipeline:
        same_images = [(arm, against) for arm, against in whole.get("same_images", ())]
        comparison = compare({_short(arm): seeds for arm, seeds in by_seed.items()}, same_images=same_images)
    else:
        reference, *compared = trainings
        others = [arm for arm in compared if _images(trainings[arm]) != _images(trainings[reference])]
        pairs = [(arm, reference) for arm in compared if arm not in others]
        comparison = compare(by_seed, pairs, titles={})
        unpaired = [arm for arm, _ in pairs if (arm, reference) not in comparison.differences]
    thresholds = {_thresholds(folder): arm for arm, folders in trainings.items() for folder in folders.values()}
    if len(thresholds) > 1:
        told = "; ".join(f"{arm} with more than {many} and fewer than {few}" for (many, few), arm in thresholds.items())
        raise InputError("runs with the same --many and --few", told, "report on them one by one")
    return ReportData(
        title=title,
        classes=tuple(first["classes"]),
        groups=tuple(first["groups"]),
        counts=tuple(first["train_counts"]),
        synthetic_counts=tuple(most["synthetic_counts"]),
        split=split,
        metrics=metrics,
        histories={arm: _history(_first(seeds) / "history.csv") for arm, seeds in trainings.items()},
        comparison=comparison,
        synthesis=None if synthesis is None else read_synthesis(synthesis),
        tuning=whole.get("tuning"),
        feedback=whole.get("feedback"),
        pictures=tuple(
            (f"{file.stem.replace('_', ' ')}, {arm}", file)
            for arm, seeds in trainings.items()
            for file in sorted((_first(seeds) / "pictures").glob("*.png"))
        ),
        selected=whole.get("selected"),
        config=config,
        environment=read_json(folder / "environment.json"),
        notes=report_notes(runs, split, others, unpaired, pipeline=pipeline),
        thresholds=next(iter(thresholds)),
    )


def _thresholds(run: Path) -> tuple[int, int]:
    """Bounds of many-shot and few-shot classes; runs of earlier versions say none."""
    data = read_first_stage(run)["data"]
    return data.get("many", 100), data.get("few", 20)


def _images(runs: Mapping[Any, Path]) -> set[str]:
    """Which images are in which split, of each run of an arm."""
    return {read_json(folder / "classes.json")["fingerprint"] for folder in runs.values()}


def _first(runs: Mapping[Any, Path]) -> Path:
    return next(iter(runs.values()))


def _short(arm: str) -> str:
    """The name of an arm of the pipeline, by its title."""
    return next((name for name, title in ARM_TITLES.items() if title == arm), arm)


def _finished(folder: Path) -> dict[str, Any]:
    read_run_config(folder)
    if not (folder / "metrics.json").exists():
        raise InputError("finished runs", f"{folder}, which is not", "start its command again to finish it")
    metrics: dict[str, Any] = read_json(folder / "metrics.json")
    return metrics


def _history(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
