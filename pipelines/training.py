"""Train a classifier in a run folder: config → model, figures, history; resumable at any moment."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from pipelines.config import TrainConfig
from pipelines.console import log, print_table, progress_bar
from pipelines.evaluation import evaluate_table, headline, summary_rows
from pipelines.history import History, write_history
from pipelines.loop import Step, training_steps
from pipelines.model_files import save_model
from pipelines.objective import check_training
from pipelines.open_data import OpenData, open_data
from pipelines.optimization import base_learning_rate, build_optimizer
from pipelines.preparation import Prepared, prepare_training
from pipelines.runs import RunFolder, slug
from pipelines.session import Session, start_session, start_tracking, wrap
from rebalance.averaging import MovingAverage
from rebalance.checkpoints import load_checkpoint, save_checkpoint
from rebalance.classifier import Classifier
from rebalance.counts import shot_groups
from rebalance.errors import InputError, RunError
from rebalance.files import read_json, write_json, write_tensors
from rebalance.ranks import barrier, broadcast_state, is_main


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Args:
        folder: Its run folder.
        metrics: What `metrics.json` holds.
    """

    folder: Path
    metrics: dict[str, Any]


def train(config: TrainConfig) -> TrainResult:
    """Train in the config's run folder, or go on where an earlier start was interrupted.

    Raises:
        InputError: Anything wrong with the config, the data or the folder; nothing is written then.
        RunError: A loss that is not finite; the last checkpoint stays.
    """
    name = config.place.experiment or f"{slug(config.data.data)}-{config.objective.recipe}"
    return train_in(config.place.output / "train" / name, config)


def train_in(folder: Path, config: TrainConfig, opened: OpenData | None = None) -> TrainResult:
    """`train` in a folder of the caller's choice, on data that may be open already."""
    check_training(config)
    place = config.place
    session = start_session(place.device, amp=config.optimization.amp, log=place.log, folder=folder)
    if place.resume and (folder / "metrics.json").exists():
        with RunFolder(folder, "train", config):
            log.info("%s is finished already", folder)
            return TrainResult(folder, read_json(folder / "metrics.json"))
    opened = opened if opened is not None else open_data(config.data, session.device)
    prepared = prepare_training(config, opened, session.device)
    with RunFolder(folder, "train", config, resume=place.resume) as run:
        _claim_data(run, opened, prepared)
        _announce(config, opened, prepared)
        metrics = _Training(config, opened, prepared, session, run).run()
    return TrainResult(folder, metrics)


class _Training:
    """The state of one training, and what happens after each of its updates."""

    def __init__(
        self, config: TrainConfig, opened: OpenData, prepared: Prepared, session: Session, run: RunFolder
    ) -> None:
        self.config = config
        self.opened = opened
        self.prepared = prepared
        self.session = session
        self.folder = run.path
        self.method = prepared.method
        self.groups = shot_groups(prepared.description.train_counts)
        self.optimizer = build_optimizer(self.method, config.optimization)
        decay = config.optimization.model_ema
        self.average = MovingAverage(self.method.classifier, decay) if decay is not None else None
        self.modules: dict[str, nn.Module] = {"method": self.method}
        if self.average is not None:
            self.modules["average"] = self.average
        amp_fp16 = config.optimization.amp == "fp16"
        self.scaler = torch.amp.GradScaler(session.device.type) if amp_fp16 else None
        state = load_checkpoint(self.folder / "checkpoints", self.modules, self.optimizer) or {}
        self.start: int = state.get("update", 0)
        self.best: dict[str, Any] | None = state.get("best")
        self.history = History(session, state.get("history"))
        if self.scaler is not None and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])

    @property
    def classifier(self) -> Classifier:
        """What is evaluated: the averaged classifier where there is one."""
        return self.method.classifier if self.average is None else self.average.average

    def run(self) -> dict[str, Any]:
        batches = self.prepared.batches
        if self.start:
            log.info("going on after update %d of %d", self.start, batches.n_updates)
        start_tracking(self.session, self.start)
        self._train()
        metrics = self._finish()
        self.session.accelerator.end_training()
        return metrics

    def _train(self) -> None:
        if self.config.optimization.compile:
            self.method.compile()
        module = wrap(self.session, self.method)
        batches = self.prepared.batches
        n_total = batches.n_updates * len(batches.real) // batches.updates_per_epoch
        n_done = self.start * len(batches.real) // batches.updates_per_epoch
        began = time.monotonic()
        with progress_bar(n_total, f"training {self.config.objective.recipe}", "images", n_done) as bar:
            for step in training_steps(
                self.method,
                module,
                self.optimizer,
                self.prepared.data,
                batches,
                self.config.optimization,
                seed=self.config.seed,
                start=self.start,
                average=self.average,
                backward=self.session.accelerator.backward,
                scaler=self.scaler,
            ):
                bar.update(step.n_images)
                self.history.add(step)
                if step.ends_epoch:
                    row = self._end_epoch(step, time.monotonic() - began)
                    began = time.monotonic()
                    bar.note(f"epoch {step.epoch + 1} of {batches.epochs}, loss {row['train_loss']:.3f}")
                if step.update % self.config.place.checkpoint_updates == 0 or step.update == batches.n_updates:
                    self._save(step.update)

    def _end_epoch(self, step: Step, seconds: float) -> dict[str, Any]:
        figures: dict[str, float | None] = {}
        every = max(1, self.prepared.batches.epochs // 50)
        last = step.update == self.prepared.batches.n_updates
        if "val" in self.opened.tables and ((step.epoch + 1) % every == 0 or last):
            figures = headline(self._evaluate("val"))
            self._keep_best(step, figures["balanced_accuracy"])
        return self.history.end_epoch(step, seconds, figures)

    def _keep_best(self, step: Step, accuracy: float | None) -> None:
        if accuracy is None or (self.best is not None and accuracy <= self.best["balanced_accuracy"]):
            return
        self.best = {"epoch": step.epoch, "update": step.update, "balanced_accuracy": accuracy}
        if is_main():
            (self.folder / "checkpoints").mkdir(exist_ok=True)
            write_tensors(self.folder / "checkpoints" / "best.safetensors", self.classifier.state_dict())

    def _evaluate(self, split: str) -> dict[str, Any]:
        broadcast_state(self.classifier)
        data = self.prepared.data
        decoded = self.opened.tables[split]
        return evaluate_table(self.classifier, decoded, self.groups, data.mean, data.std, self.session.device)

    def _save(self, update: int) -> None:
        self.history.flush()
        for name, parameter in self.method.named_parameters():
            if not torch.isfinite(parameter).all():
                raise RunError(f"{name} is not finite after update {update}; lower --lr, or add --clip-grad 1")
        if is_main():
            scaler = self.scaler.state_dict() if self.scaler is not None else None
            state = {"best": self.best, "history": self.history.state(), "scaler": scaler}
            save_checkpoint(self.folder / "checkpoints", update, self.modules, self.optimizer, state)
            write_history(self.folder / "history.csv", self.history.rows)
        barrier()

    def _finish(self) -> dict[str, Any]:
        """Take the selected weights, read the test split once, and write model and metrics."""
        selected: dict[str, Any] = {
            "by": "last epoch" if self.average is None else "averaged weights at the last epoch"
        }
        if self.best is not None:
            best = load_file(self.folder / "checkpoints" / "best.safetensors")
            self.classifier.load_state_dict(best)
            selected = {"by": "balanced accuracy on the validation split", **self.best}
        figures: dict[str, Any] = {
            split: self._evaluate(split) for split in ("val", "test") if split in self.opened.tables
        }
        real, synthetic = self.prepared.counts
        metrics: dict[str, Any] = {
            "method": self.config.objective.recipe,
            "seed": self.config.seed,
            "updates": self.prepared.batches.n_updates,
            "classes": list(self.opened.classes),
            "groups": self.groups,
            "train_counts": real.astype(int).tolist(),
            "synthetic_counts": synthetic.astype(int).tolist(),
            "selected": selected,
            "kappa": self.config.mixing.kappa,
            **figures,
        }
        if is_main():
            save_model(self.folder / "model", self.classifier, self.prepared.description)
            write_history(self.folder / "history.csv", self.history.rows)
            write_json(self.folder / "metrics.json", metrics)
        barrier()
        return metrics


def _claim_data(run: RunFolder, opened: OpenData, prepared: Prepared) -> None:
    """Remember what the run is trained on; refuse to go on with other images."""
    file = run / "classes.json"
    description = {
        "classes": list(opened.classes),
        "train_counts": prepared.counts[0].astype(int).tolist(),
        "synthetic_counts": prepared.counts[1].astype(int).tolist(),
        "image_size": opened.size,
        "skipped": [name for table in opened.tables.values() for name in table.skipped],
        "fingerprint": opened.fingerprint,
    }
    if file.exists() and (found := read_json(file)) != description:
        changed = ", ".join(name for name in description if found.get(name) != description[name])
        raise InputError(
            f"the images that {run.path} was begun with",
            f"others: {changed} differ",
            "restore them, start again with --no-resume, or choose another --experiment",
        )
    if is_main():
        write_json(file, description)
    barrier()


def _announce(config: TrainConfig, opened: OpenData, prepared: Prepared) -> None:
    """The class table with the effective draw of the first epoch, and the learning rate."""
    optimization = config.optimization
    real, synthetic = prepared.counts
    groups = shot_groups(real)
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
    rule = (
        "as given"
        if optimization.lr is not None
        else f"base {optimization.base_lr:g} × {optimization.batch_size} / 256"
    )
    log.info(
        "%d updates of %d images (%d epochs), learning rate %g (%s)",
        prepared.batches.n_updates,
        optimization.batch_size,
        prepared.batches.epochs,
        base_learning_rate(optimization),
        rule,
    )


def train_command(config: TrainConfig) -> None:
    """`rebalance train`: train, then print the figures."""
    result = train(config)
    for split in ("val", "test"):
        if split in result.metrics:
            print_table(f"{split} split", ["", "%"], summary_rows(result.metrics[split]))
    if "test" not in result.metrics:
        log.info("no test split, so no figures: give one, or set --test-fraction 0.2")
    log.info("run folder: %s", result.folder)
