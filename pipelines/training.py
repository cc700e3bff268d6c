"""Train a classifier in a run folder: config → model, figures, history; resumable at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.checked_settings import check_config
from pipelines.config import TrainConfig
from pipelines.console import log, print_table
from pipelines.distillation import check_teacher, teacher_facts
from pipelines.figure_tables import print_figures
from pipelines.objective import check_training, warn_without_synthetic
from pipelines.open_data import OpenData, open_data
from pipelines.optimization import LONGEST_WARMUP, base_learning_rate, learning_rate_rule, warn_of_epochs
from pipelines.precision import Amp, with_precision
from pipelines.preparation import Prepared, prepare_training
from pipelines.results import claim_data
from pipelines.runs import RunFolder, slug
from pipelines.session import Session, start_session
from pipelines.synthetic_images import of_other_splits, repeat_warnings
from pipelines.training_run import TrainingRun
from rebalance.devices import kept_random_state
from rebalance.files import read_json


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Args:
        folder: Its run folder.
        metrics: What `metrics.json` holds.
    """

    folder: Path
    metrics: dict[str, Any] = field(repr=False)


def train(config: TrainConfig) -> TrainResult:
    """Train in the config's run folder, or go on where an earlier start was interrupted.

    Raises:
        InputError: Anything wrong with the config, the data or the folder; nothing is written then.
        RunError: A loss that is not finite; the last checkpoint stays.
    """
    check_config(config, TrainConfig)
    warn_without_synthetic(config)
    warn_of_epochs(config.optimization)
    repeat_warnings(config.synthetic)
    taught = "-taught" if config.objective.teacher is not None else ""
    seed = f"-seed{config.seed}" if config.seed else ""
    name = config.place.experiment or f"{slug(config.data.data)}-{config.objective.recipe}{taught}{seed}"
    return train_in(config.place.output / "train" / name, config)


def train_in(
    folder: Path,
    config: TrainConfig,
    opened: OpenData | None = None,
    *,
    auto: Amp | None = None,
    with_table: bool = True,
) -> TrainResult:
    """`train` in a folder of the caller's choice, on data that may be open already.

    Args:
        folder: Where to.
        config: What to train.
        opened: The data.
        auto: What `--amp auto` is, where it is known; it is found out otherwise.
        with_table: Print the class table; not again for each of many alike trainings.
    """
    check_training(config)
    place = config.place
    session = start_session(place.device, amp=config.optimization.amp, tracker=place.report_to, folder=folder)
    if place.resume and (folder / "metrics.json").exists():
        with RunFolder(folder, "train", config):
            log.info("%s is finished already", folder)
            return TrainResult(folder, read_json(folder / "metrics.json"))
    with kept_random_state(session.device):
        return _train(folder, config, opened, session, auto, with_table)


def _train(
    folder: Path,
    config: TrainConfig,
    opened: OpenData | None,
    session: Session,
    auto: Amp | None,
    with_table: bool,
) -> TrainResult:
    check_teacher(config.objective, folder)
    may_have_none = opened is None  # whoever opened the data knows what is measured on
    opened = opened if opened is not None else open_data(config.data, session.device)
    prepared = prepare_training(config, opened, session.device)
    with RunFolder(folder, "train", config, resume=config.place.resume) as run:
        resolved = with_precision(config, session.device, opened.size, folder, auto)
        facts = teacher_facts(config.objective)
        claimed = {name: fact["weights"] for name, fact in facts.items()}
        claim_data(run, opened, prepared.counts[1], precision=resolved.optimization.amp, **claimed)
        if config.synthetic is not None and of_other_splits(config.synthetic, opened.fingerprint):
            facts["synthesis_of_other_splits"] = True
        if with_table:
            print_classes(config, opened, prepared)
        announce(resolved, prepared)
        if may_have_none and not {"val", "test"} & opened.tables.keys():
            log.warning("no split to measure on, so there will be no figures: give one, or set --test-fraction 0.2")
        metrics = TrainingRun(resolved, opened, prepared, session, run, facts).run()
    return TrainResult(folder, metrics)


def print_classes(config: TrainConfig, opened: OpenData, prepared: Prepared) -> None:
    """The class table, with the effective draw of the first epoch."""
    real, synthetic = prepared.counts
    groups = prepared.description.groups
    rows = [
        [name, f"{n:.0f}", f"{m:.0f}", f"{draws:.1f}", group]
        for name, n, m, draws, group in zip(opened.classes, real, synthetic, prepared.expected, groups, strict=True)
    ]
    if len(rows) > 40:
        rows = [*rows[:20], ["…", "", "", "", ""], *rows[-20:]]
    print_table(
        f"{config.objective.recipe} on {config.data.data}",
        ["class", "real", "synthetic", "drawn in epoch 1", "group"],
        rows,
    )


def announce(config: TrainConfig, prepared: Prepared) -> None:
    """What is optimised, for how long, and how fast."""
    optimization = config.optimization
    if config.objective.loss and config.objective.method not in (None, "composed"):
        log.info("loss: %s, in place of that of %s", " + ".join(config.objective.loss), config.objective.method)
    largest = max(end - begin for begin, end in prepared.batches.bounds)
    if optimization.warmup_epochs > (most := LONGEST_WARMUP * prepared.batches.length):
        log.info("warm-up: %.3g epochs, a quarter of training, instead of %g", most, optimization.warmup_epochs)
    log.info(
        "%d updates of %d images%s (%d epoch%s), learning rate %g (%s), precision %s",
        prepared.batches.n_updates,
        largest,
        f", which are all, fewer than --batch-size {optimization.batch_size}" * (largest < optimization.batch_size),
        prepared.batches.epochs,
        "s" * (prepared.batches.epochs != 1),
        base_learning_rate(optimization),
        learning_rate_rule(optimization),
        {"no": "float32"}.get(optimization.amp, optimization.amp),
    )


def print_results(result: TrainResult) -> None:
    """The figures of a finished training as tables, and where it is."""
    for split in ("val", "test"):
        if split in result.metrics:
            print_figures(f"{split} split", result.metrics[split], result.metrics["classes"])
    if "test" not in result.metrics:
        log.info("no test split, so no figures of one")
    log.info("run folder: %s", result.folder)


def train_command(config: TrainConfig) -> None:
    """`rebalance train`: train, then print the figures."""
    print_results(train(config))
