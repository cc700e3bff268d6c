"""Give a trained run another head, in a run folder of its own: second stages of decoupled training.

config.yaml        of this stage
first_stage.yaml   of the run that it began with
everything else    as in a run of `rebalance train`
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.checked_settings import check_config
from pipelines.config import RETRAINING_EPOCHS, RetrainConfig, TrainConfig
from pipelines.config_files import from_dict, parse_pairs
from pipelines.config_groups import MixingConfig, ObjectiveConfig
from pipelines.console import log
from pipelines.evaluation import predict_rows
from pipelines.history import write_history
from pipelines.model_files import ModelDescription, TrainedClassifier, load_model, weights_of
from pipelines.open_data import OpenData, open_data
from pipelines.optimization import check_optimization, warn_of_epochs
from pipelines.options import options_of, read_options
from pipelines.precision import with_precision
from pipelines.preparation import Prepared, prepare_training
from pipelines.ranges import refuse_below
from pipelines.results import claim_data, save_results
from pipelines.runs import FIRST_STAGE, RunFolder, read_run_config
from pipelines.second_stages import SECOND_STAGES, FirstStage, SecondStage
from pipelines.session import Session, start_session
from pipelines.trained_runs import own_splits, prior_behind, prior_of, training_of
from pipelines.training import TrainResult, announce, print_classes, print_results
from pipelines.training_run import TrainingRun
from rebalance.classifier import Classifier
from rebalance.errors import InputError, nearest
from rebalance.files import read_json, sha256
from rebalance.methods.base import Method
from rebalance.ranks import barrier, is_main, seed_everything


@dataclass(frozen=True)
class _Source:
    """The run that a second stage begins with.

    Args:
        folder: Its folder.
        config: What it was trained with.
        model: What it left.
    """

    folder: Path
    config: TrainConfig
    model: TrainedClassifier


def retrain(config: RetrainConfig) -> TrainResult:
    """Make a second stage of a trained run, or go on where an earlier start was interrupted.

    Raises:
        InputError: Anything wrong with the config, the run, its data or the folder; nothing is written then.
        RunError: A loss that is not finite; the last checkpoint stays.
    """
    check_config(config, RetrainConfig)
    place = config.place
    options = _options(config)
    check_optimization(config.optimization)
    warn_of_epochs(config.optimization, RETRAINING_EPOCHS)
    refuse_below(1, {"--checkpoint-updates": place.checkpoint_updates})
    source = _read_source(config.run)
    folder = place.output / "retrain" / (place.experiment or f"{_name(source.folder)}-{config.method}")
    session = start_session(place.device, amp=config.optimization.amp, tracker=place.report_to, folder=folder)
    if place.resume and (folder / "metrics.json").exists():
        with RunFolder(folder, "retrain", config):
            log.info("%s is finished already", folder)
            return TrainResult(folder, read_json(folder / "metrics.json"))
    training = _training_config(config, source, options)
    data, splits = own_splits(training.data, source.folder)
    opened = open_data(data, session.device, splits)
    if opened.classes != source.model.classes:
        raise InputError(
            f"the classes of {source.folder}", f"others in {training.data.data}", "restore the data it was trained on"
        )
    first = _first_stage(source, opened, session)
    seed_everything(training.seed)
    second = _second_stage(config.method, first, options)
    prepared = _prepared(second, training, opened, session)
    with RunFolder(folder, "retrain", config, resume=place.resume) as run:
        training = with_precision(training, session.device, opened.size, folder)
        weights = sha256(weights_of(source.folder))
        claim_data(run, opened, first_stage=weights, precision=training.optimization.amp)
        if is_main():
            shutil.copyfile(source.folder / "config.yaml", run / FIRST_STAGE)
        barrier()
        prior = prior_behind(config.method, first.knows_prior)
        facts = {"first_stage": str(source.folder), "prior": prior, **second.facts}
        if prepared is None:
            assert isinstance(second.made, Classifier)
            metrics = _save(run, second.made, second, training, opened, session, facts)
        else:
            print_classes(training, opened, prepared)
            announce(training, prepared)
            metrics = TrainingRun(training, opened, prepared, session, run, facts).run()
    return TrainResult(folder, metrics)


def _options(config: RetrainConfig) -> dict[str, Any]:
    if config.method not in SECOND_STAGES:
        raise InputError("a second stage", repr(config.method), nearest(config.method, SECOND_STAGES))
    defaults = options_of(SECOND_STAGES[config.method])
    return {**defaults, **read_options(config.method, defaults, parse_pairs(config.option, "-o"))}


def _second_stage(name: str, first: FirstStage, options: dict[str, Any]) -> SecondStage:
    try:
        return SECOND_STAGES[name](first, **options)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"valid options of {name}", str(error), f"see `rebalance methods {name}`") from error


def _read_source(run: Path) -> _Source:
    """The run to begin with; of a pipeline, the training that became its `model/`."""
    run = training_of(run)
    saved = read_run_config(run)
    if saved["command"] != "train":
        raise InputError(
            "a run of `rebalance train` or `rebalance run`", f"{run} of {saved['command']}", "give the first stage"
        )
    del saved["command"]
    return _Source(run, from_dict(TrainConfig, saved), load_model(run))


def _name(folder: Path) -> str:
    """A name for what is made of a run; an arm of a pipeline is named after all three."""
    path = folder.resolve()
    if path.parents[1].name != "arms":
        return path.name
    return "-".join((path.parents[2].name, path.parent.name, path.name))


def _training_config(config: RetrainConfig, source: _Source, options: dict[str, Any]) -> TrainConfig:
    """The second stage as a training: on the real images, in the first view of the first stage."""
    first = source.config
    augment = str(read_json(source.folder / "metrics.json").get("augment", first.data.augment))
    if first.synthetic is not None:
        log.info("the first stage had synthetic images too; the second sees the real ones alone")
    return replace(
        first,
        data=replace(first.data, image_size=source.model.image_size, augment=augment.split(",")[0]),
        objective=ObjectiveConfig(method=config.method, sampler_rule=options.get("sampler_rule", "none")),
        optimization=config.optimization,
        synthetic=None,
        mixing=MixingConfig(),
        seed=first.seed if config.seed is None else config.seed,
        place=config.place,
    )


def _first_stage(source: _Source, opened: OpenData, session: Session) -> FirstStage:
    model = source.model.to(session.device)

    def outputs(split: str, module: nn.Module) -> tuple[Tensor, Tensor] | None:
        if split not in opened.tables:
            return None
        decoded = opened.tables[split]
        rows = np.arange(len(decoded.table), dtype=np.int64)
        parts = predict_rows(module.eval(), decoded, rows, model.mean, model.std)
        return torch.cat([part for _, part in parts]), torch.from_numpy(decoded.table.targets).to(session.device)

    return FirstStage(model.classifier, model.description, outputs, prior_of(source.folder))


def _prepared(second: SecondStage, training: TrainConfig, opened: OpenData, session: Session) -> Prepared | None:
    """What the training of the second stage is made of; None where nothing is trained."""
    method = second.made
    if not isinstance(method, Method):
        return None

    def build(*_: object) -> tuple[Method, ModelDescription]:
        return method, second.description

    return prepare_training(training, opened, session.device, build)


def _save(
    run: RunFolder,
    classifier: Classifier,
    second: SecondStage,
    training: TrainConfig,
    opened: OpenData,
    session: Session,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """What a run of no updates leaves."""
    counts = opened.train.table.counts
    everything = {
        "method": training.objective.recipe,
        "seed": training.seed,
        "updates": 0,
        "train_counts": counts.tolist(),
        "synthetic_counts": np.zeros_like(counts).tolist(),
        "selected": {"by": "computed, not trained"},
        "kappa": 0.0,
        **facts,
    }
    if is_main():
        write_history(run / "history.csv", [])
    return save_results(run.path, classifier.to(session.device), second.description, opened, session.device, everything)


def retrain_command(config: RetrainConfig) -> None:
    """`rebalance retrain`: make the second stage, then print the figures."""
    print_results(retrain(config))
