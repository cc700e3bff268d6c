"""One training in its run folder, update by update: checkpoints, evaluation, history, results."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from pipelines.config import TrainConfig
from pipelines.config_files import to_dict
from pipelines.console import log, progress_bar
from pipelines.evaluation import evaluate_table
from pipelines.history import History, write_history
from pipelines.kernels import kernels
from pipelines.loop import Step, training_steps
from pipelines.open_data import OpenData
from pipelines.optimization import base_learning_rate, build_optimizer
from pipelines.pictures import MAX_PICTURES, write_pictures
from pipelines.preparation import Prepared, augmentation_of
from pipelines.results import save_results
from pipelines.runs import RunFolder
from pipelines.session import Session, end_tracking, start_tracking, wrap
from rebalance.averaging import MovingAverage
from rebalance.checkpoints import load_checkpoint, save_checkpoint
from rebalance.classifier import Classifier
from rebalance.data.augmentation import normalize
from rebalance.errors import InputError, RunError
from rebalance.files import write_tensors
from rebalance.interruption import Interruption
from rebalance.metrics import headline
from rebalance.ranks import barrier, broadcast_state, is_main


@final
class TrainingRun:
    """The state of one training, and what happens after each of its updates.

    Args:
        config: What to train.
        opened: The data.
        prepared: What the training is made of.
        session: Devices and ranks.
        run: Its folder; a checkpoint in it is gone on from.
        facts: What else `metrics.json` is to hold.
    """

    def __init__(
        self,
        config: TrainConfig,
        opened: OpenData,
        prepared: Prepared,
        session: Session,
        run: RunFolder,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.opened = opened
        self.prepared = prepared
        self.session = session
        self.folder = run.path
        self.facts = dict(facts or {})
        self.method = prepared.method
        self.groups = prepared.description.groups
        self.optimizer = build_optimizer(self.method, config.optimization, self.method.learning_rate_factors)
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
        self._find_best_weights()
        self.history = History(session, state.get("history"))
        if self.scaler is not None and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])

    @property
    def classifier(self) -> Classifier:
        """What is evaluated: the averaged classifier where there is one."""
        return self.method.classifier if self.average is None else self.average.average

    def run(self) -> dict[str, Any]:
        """Train to the end; what `metrics.json` then holds."""
        batches = self.prepared.batches
        if self.start:
            log.info("going on after update %d of %d", self.start, batches.n_updates)
        start_tracking(self.session, self.start, to_dict(self.config))
        with kernels(deterministic=self.config.optimization.deterministic):
            self._train()
            metrics = self._finish()
        end_tracking(self.session)
        return metrics

    def _train(self) -> None:
        if self.config.optimization.compile:
            self.method.compile()
        module = wrap(self.session, self.method)
        batches = self.prepared.batches
        n_total = batches.n_updates * len(batches.real) // batches.updates_per_epoch
        n_done = self.start * len(batches.real) // batches.updates_per_epoch
        began = time.monotonic()
        title = f"training {self.config.objective.recipe}"
        with progress_bar(n_total, title, "images", n_done) as bar, Interruption() as interruption:
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
                due = step.update % self.config.place.checkpoint_updates == 0 or step.update == batches.n_updates
                stopping = interruption.heard is not None
                if due or stopping:
                    self._save(step.update)
                if stopping:
                    interruption.act()

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
            write_tensors(self._best_weights(), self.classifier.state_dict())

    def _find_best_weights(self) -> None:
        """Those of a run that an earlier version began have another name."""
        if self.best is None:
            return
        before = self.folder / "checkpoints" / "best.safetensors"
        if is_main() and before.exists() and not self._best_weights().exists():
            before.rename(self._best_weights())
        barrier()
        if not self._best_weights().exists():
            raise InputError(f"{self._best_weights()}", "no such file", "start the run again with --no-resume")

    def _best_weights(self) -> Path:
        """Named by their update: those that the last checkpoint knows stay until another one is whole."""
        assert self.best is not None
        return self.folder / "checkpoints" / f"best_{self.best['update']:07d}.safetensors"

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
            if self.best is not None:
                for file in (self.folder / "checkpoints").glob("best_*.safetensors"):
                    if file != self._best_weights():
                        file.unlink()
        barrier()

    def _finish(self) -> dict[str, Any]:
        """Take the selected weights, and write what remains of the run."""
        self._save_pictures()
        selected: dict[str, Any] = {
            "by": "last epoch" if self.average is None else "averaged weights at the last epoch"
        }
        if self.best is not None:
            self.classifier.load_state_dict(load_file(self._best_weights()))
            selected = {"by": "balanced accuracy on the validation split", **self.best}
        broadcast_state(self.classifier)
        real, synthetic = self.prepared.counts
        facts: dict[str, Any] = {
            "method": self.config.objective.recipe,
            "model": self.prepared.description.backbone,
            "image_size": self.opened.size,
            "lr": base_learning_rate(self.config.optimization),
            "seed": self.config.seed,
            "updates": self.prepared.batches.n_updates,
            "train_counts": real.astype(int).tolist(),
            "synthetic_counts": synthetic.astype(int).tolist(),
            "selected": selected,
            "kappa": self.prepared.kappa,
            "augment": augmentation_of(self.config.data, self.opened.size, self.method),
            **self.facts,
        }
        classifier = self.method.export(self.classifier)
        if is_main():
            write_history(self.folder / "history.csv", self.history.rows)
        return save_results(self.folder, classifier, self.prepared.description, self.opened, self.session.device, facts)

    def _save_pictures(self) -> None:
        """What the method has to show of one training image a class."""
        if not is_main():
            return
        data = self.prepared.data
        rows = np.unique(data.targets.cpu().numpy(), return_index=True)[1][:MAX_PICTURES]
        images = normalize(data.store.get(rows), data.mean, data.std)
        self.method.eval()
        with torch.no_grad():
            pictures = self.method.pictures(images)
        write_pictures(self.folder, pictures, data.mean, data.std)
