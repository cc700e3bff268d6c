"""The whole pipeline: the arms side by side, on the same splits, seeds and number of updates.

arms/<arm>/seed-<n>/   a training each
synthesis/             generator, images, manifest, contact sheets
feedback/              the same in rounds, with --rounds
metrics.json           all arms, with intervals and paired differences
model/                 of the selected arm
report.html, .md, .json
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.arms import WITH_IMAGES, arm_config, features_run, synthesis_config, with_augmentation_of
from pipelines.checked_settings import check_config
from pipelines.comparison import ARM_TITLES, METRIC_TITLES, Estimate, compare
from pipelines.config import Arm, RebalanceConfig, ReportConfig
from pipelines.console import log, print_table
from pipelines.feedback import check_rounds, make_in_rounds, read_rounds, with_feedback_arm
from pipelines.generator_flags import check_generator
from pipelines.judging import check_gates, warn_of_feature_updates
from pipelines.loading import load_splits, with_default_test
from pipelines.model_files import weights_of
from pipelines.objective import check_training
from pipelines.open_data import OpenData, open_data
from pipelines.optimization import warn_of_epochs
from pipelines.pipeline_plan import plan_pipeline, show_plan
from pipelines.precision import Amp, with_precision
from pipelines.preparation import prepare_training
from pipelines.ranges import refuse_below
from pipelines.reporting import report
from pipelines.results import claim_data
from pipelines.runs import RunFolder, slug
from pipelines.same_images import ALIKE, copy_training, pairs_on_the_same, same_images
from pipelines.session import start_session
from pipelines.synthesis import check_synthesis, synthesize
from pipelines.training import TrainResult, train_in
from pipelines.tuning import parse_candidates, read_tuning, tune
from rebalance.errors import InputError
from rebalance.files import read_json, write_json
from rebalance.ranks import barrier, is_main

_SELECTABLE: tuple[Arm, ...] = ("feedback", "synthetic", "rebalanced", "ce")


@dataclass(frozen=True)
class RebalanceResult:
    """A finished pipeline.

    Args:
        folder: Its run folder.
        metrics: What `metrics.json` holds; of a dry run the plan, and nothing is written.
    """

    folder: Path
    metrics: dict[str, Any] = field(repr=False)


def rebalance_and_train(config: RebalanceConfig) -> RebalanceResult:
    """Run the pipeline, or go on where an earlier start was interrupted; what is done is not repeated.

    Raises:
        InputError: Anything wrong with the config, the data or the folder.
        RunError: A training that failed.
    """
    check_config(config, RebalanceConfig)
    _check(config)
    warn_of_epochs(config.optimization)
    config = with_feedback_arm(config)
    place = config.place
    name = place.experiment or f"{slug(config.data.data)}-{config.objective.recipe}"
    folder = place.output / "run" / name
    session = start_session(place.device, amp=config.optimization.amp, patient=True)
    data, splits = with_default_test(config.data, load_splits(config.data))
    config = replace(config, data=data)
    check_rounds(config, splits)
    is_finished = (folder / "metrics.json").exists() and (folder / "report.html").exists()
    if place.resume and is_finished and not config.dry_run:
        with RunFolder(folder, "run", config):
            log.info("%s is finished already", folder)
            return RebalanceResult(folder, read_json(folder / "metrics.json"))
    opened = open_data(data, session.device, splits)
    method = prepare_training(arm_config(config, "rebalanced", config.seed, None), opened, session.device).method
    baseline = with_augmentation_of(method, config, opened.size)
    prepare_training(arm_config(baseline, "ce", config.seed, None), opened, session.device)
    if config.dry_run:
        plan = plan_pipeline(config, baseline, opened, session.device, folder)
        show_plan(plan)
        return RebalanceResult(folder, {"plan": [asdict(part) for part in plan]})
    begun = place.resume and (folder / "config.yaml").exists()
    if WITH_IMAGES.keys() & set(config.arms) and not begun:
        check_synthesis(synthesis_config(config, folder / "synthesis", features_run(config, folder)), opened)
    with RunFolder(folder, "run", config, resume=place.resume) as run:
        resolved = with_precision(arm_config(config, "ce", config.seed, None), session.device, opened.size, folder)
        claim_data(run, opened, precision=resolved.optimization.amp)
        results = _run_arms(config, baseline, opened, run, resolved.optimization.amp)
        seeds = range(config.seed, config.seed + config.seeds)
        alike = pairs_on_the_same(folder, config.arms, seeds, folder / "synthesis")
        metrics = _summarize(config, results, opened, alike, read_tuning(folder), read_rounds(folder))
        if is_main():
            _export(run, metrics["selected"]["arm"], config.seed)
            write_json(run / "metrics.json", metrics)
            report(ReportConfig(runs=(folder,)))
        barrier()
    return RebalanceResult(folder, metrics)


def _check(config: RebalanceConfig) -> None:
    if config.objective.teacher is not None:
        raise InputError(
            "trainings that are independent of one another",
            "--teacher, one run that would teach every seed of every arm but plain cross entropy",
            "teach with `rebalance train --teacher`, each seed by its own, and compare with `rebalance report`",
        )
    check_training(arm_config(config, "rebalanced", config.seed, None))
    refuse_below(0, {"--max-minutes": config.max_minutes})
    parse_candidates(config)
    check_generator(config)
    check_gates(config.filter)
    of_arm = "the re-balanced arm" if "rebalanced" in config.arms else None
    warn_of_feature_updates(config.filter, config.filter.features or of_arm)
    if config.filter.features is not None:
        weights_of(config.filter.features)
    if config.tune_folds == 1 or config.tune_folds < 0:
        raise InputError("--tune-folds of 2 or more, or 0", str(config.tune_folds), "3 are usual")
    if config.seeds < 1:
        raise InputError("--seeds of at least 1", str(config.seeds), "3 give an interval")
    if not config.arms or len(set(config.arms)) < len(config.arms):
        raise InputError("different arms", str(config.arms), f"choose among {', '.join(ARM_TITLES)}")
    check_rounds(config)
    arms = with_feedback_arm(config).arms
    if config.select != "auto" and config.select not in arms:
        raise InputError("--select of an arm that is run", repr(config.select), f"the arms are {', '.join(arms)}")


def _run_arms(
    config: RebalanceConfig, baseline: RebalanceConfig, opened: OpenData, run: RunFolder, auto: Amp
) -> dict[Arm, list[TrainResult]]:
    """Train every arm with every seed: first those without images, whose features the gates use."""
    results: dict[Arm, list[TrainResult]] = {}
    for arm in [arm for arm in config.arms if arm not in WITH_IMAGES]:
        results[arm] = _train_arm(baseline if arm == "ce" else config, arm, None, opened, run, auto)
    if any(arm in WITH_IMAGES for arm in config.arms):
        images = run / "synthesis"
        features = features_run(config, run.path)
        synthesize(synthesis_config(config, images, features), opened, checked=True)
        train_candidate = partial(_train_candidate, auto)
        tuning = tune(run / "tuning", config, opened, images, train_candidate, _synthesize_fold)
        if tuning is not None:
            config = replace(config, mixing=tuning.mixing)
        for arm in [arm for arm in config.arms if arm in WITH_IMAGES]:
            made = images
            if arm == "feedback":
                made = make_in_rounds(
                    run / "feedback", config, opened, images, features, train_candidate, synthesis_config
                )
            copied = _copy_arm(config, arm, images, run) if arm in ALIKE and ALIKE[arm] in results else ()
            results[arm] = _train_arm(config, arm, made, opened, run, auto, copied)
    return {arm: results[arm] for arm in config.arms}


def _copy_arm(config: RebalanceConfig, arm: Arm, images: Path, run: RunFolder) -> list[int]:
    """Take over what was trained on the same images; the seeds of which that was done, none that was begun before."""
    taken = same_images(config.arms, images)
    if taken is None:
        return []
    copied = []
    for seed in range(config.seed, config.seed + config.seeds):
        source, folder = (run / "arms" / one / f"seed-{seed}" for one in (ALIKE[arm], arm))
        if copy_training(source, folder, arm_config(config, arm, seed, images), taken):
            copied.append(seed)
    if copied:
        log.info("%s: the same images as %s, so not trained again", ARM_TITLES[arm], ARM_TITLES[ALIKE[arm]])
    return copied


def _train_candidate(
    auto: Amp, folder: Path, config: RebalanceConfig, opened: OpenData, images: Path | None
) -> dict[str, Any]:
    arm: Arm = "rebalanced" if images is None else "synthetic"
    return train_in(folder, arm_config(config, arm, config.seed, images), opened, auto=auto, with_table=False).metrics


def _synthesize_fold(folder: Path, config: RebalanceConfig, opened: OpenData, features: Path) -> None:
    synthesize(synthesis_config(config, folder, features), opened, checked=True)


def _train_arm(
    config: RebalanceConfig,
    arm: Arm,
    images: Path | None,
    opened: OpenData,
    run: RunFolder,
    auto: Amp,
    copied: Collection[int] = (),
) -> list[TrainResult]:
    before = config.seeds * sorted(config.arms, key=WITH_IMAGES.__contains__).index(arm)
    trainings = []
    for i, seed in enumerate(range(config.seed, config.seed + config.seeds)):
        folder = run / "arms" / arm / f"seed-{seed}"
        if seed in copied:
            trainings.append(TrainResult(folder, read_json(folder / "metrics.json")))
            continue
        if not (folder / "metrics.json").exists():
            n_all = config.seeds * len(config.arms)
            log.info("training %d of %d: %s, seed %d", before + i + 1, n_all, ARM_TITLES[arm], seed)
        training = arm_config(config, arm, seed, images)
        trainings.append(train_in(folder, training, opened, auto=auto, with_table=i == 0))
    return trainings


def _summarize(
    config: RebalanceConfig,
    results: Mapping[Arm, list[TrainResult]],
    opened: OpenData,
    alike: list[tuple[str, str]],
    tuning: dict[str, Any] | None,
    feedback: dict[str, Any] | None,
) -> dict[str, Any]:
    comparison = compare(
        {arm: {run.metrics["seed"]: run.metrics["test"] for run in trainings} for arm, trainings in results.items()},
        same_images=alike,
    )
    first = next(iter(results.values()))[0].metrics
    return {
        "method": config.objective.recipe,
        "seeds": list(range(config.seed, config.seed + config.seeds)),
        "classes": list(opened.classes),
        "groups": first["groups"],
        "train_counts": first["train_counts"],
        "updates": first["updates"],
        "tuning": tuning,
        "feedback": feedback,
        "selected": _select(config, results, tuning),
        **comparison.to_dict(),
    }


def _select(
    config: RebalanceConfig, results: Mapping[Arm, list[TrainResult]], tuning: dict[str, Any] | None
) -> dict[str, Any]:
    """The arm that becomes `model/`: never by the test split."""
    choices = [arm for arm in _SELECTABLE if arm in results]
    if config.select != "auto":
        return {"arm": config.select, "by": "--select"}
    if not choices:
        return {"arm": next(iter(results)), "by": "the only kind of arm that was run"}
    if all("val" in results[arm][0].metrics for arm in choices):
        accuracy = {
            arm: float(np.mean([result.metrics["val"]["balanced_accuracy"] for result in results[arm]]))
            for arm in choices
        }
        best = max(choices, key=lambda arm: accuracy[arm])
        return {"arm": best, "by": "balanced accuracy on the validation split", "balanced_accuracy": accuracy}
    if tuning is not None and "synthetic" in choices and "rebalanced" in choices:
        return {"arm": "synthetic" if tuning["helped"] else "rebalanced", "by": f"validation on {tuning['by']}"}
    arm = "rebalanced" if "rebalanced" in choices else choices[0]
    return {"arm": arm, "by": "default: there is no validation split, and the test split is no judge"}


def _export(run: RunFolder, arm: str, seed: int) -> None:
    source, building = run / "arms" / arm / f"seed-{seed}" / "model", run / ".model.tmp"
    shutil.rmtree(building, ignore_errors=True)
    shutil.copytree(source, building)
    shutil.rmtree(run / "model", ignore_errors=True)
    building.rename(run / "model")


def run_command(config: RebalanceConfig) -> None:
    """`rebalance run`: run the pipeline, then print the comparison."""
    result = rebalance_and_train(config)
    if config.dry_run:
        return
    names = ("balanced_accuracy", "many_shot", "medium_shot", "few_shot", "worst_class", "ece")
    rows = []
    for arm, figures in result.metrics["arms"].items():
        cells = [_figure(figures.get(name)) for name in names]
        rows.append([ARM_TITLES[arm], *cells])
    n = len(result.metrics["seeds"])
    titles = {1: "one seed", 2: "mean of two seeds"}
    title = f"test split, {titles.get(n, f'mean of {n} seeds ± 95 % interval')}"
    print_table(title, ["", *(METRIC_TITLES[name] for name in names)], rows)
    for line in result.metrics["words"]:
        log.info("%s", line)
    selected = result.metrics["selected"]
    log.info("model/ is %s (%s)", ARM_TITLES[selected["arm"]], selected["by"])
    log.info("report: %s", result.folder / "report.html")


def _figure(estimate: dict[str, Any] | None) -> str:
    return "n/a" if estimate is None else Estimate(**estimate).percent()
