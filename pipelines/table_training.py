"""Train on a table in memory: the training of `rebalance train`, in a run folder that is gone afterwards."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, final

from torch import Tensor

from pipelines.config import TrainConfig
from pipelines.console import configure, log
from pipelines.model_files import TrainedClassifier, load_model
from pipelines.objective import check_training
from pipelines.open_data import open_data
from pipelines.precision import with_precision
from pipelines.preparation import prepare_training
from pipelines.runs import RunFolder
from pipelines.session import start_session
from pipelines.training import announce, print_classes
from pipelines.training_run import TrainingRun
from rebalance.data.table import ImageTable, Splits
from rebalance.devices import kept_random_state, pick_device
from rebalance.errors import InputError
from rebalance.methods.base import Method
from rebalance.ranks import barrier, broadcast, is_main
from rebalance.user_code import user_level


@dataclass(frozen=True)
class Trained:
    """What is left of a training.

    Args:
        model: The classifier, on the CPU.
        beside: What the method trained besides it: projections, key encoders, queues.
        losses: Mean loss of each epoch.
        skipped: Names of images that could not be read.
    """

    model: TrainedClassifier
    beside: dict[str, Tensor]
    losses: list[float]
    skipped: tuple[str, ...]


def train_table(config: TrainConfig, table: ImageTable, start: Trained | None = None, *, verbose: bool) -> Trained:
    """Train on all of `table`.

    Args:
        config: What to train; where the data are is not looked at.
        table: The images.
        start: Weights to begin with, of a training with the same network and method.
        verbose: Say what the command says; False says nothing.

    Raises:
        InputError: Settings that do not fit the data or one another.
        RunError: A loss that is not finite.
    """
    check_training(config)
    device = pick_device(config.place.device)
    with _voice(verbose), kept_random_state(device):
        session = start_session(config.place.device)
        if session.device.type != device.type:  # accelerate's choice is for the life of the process
            raise InputError(
                f"{session.device.type}, on which this process trained before",
                device.type,
                f"set device={session.device.type!r}, or start another process",
            )
        opened = open_data(config.data, session.device, Splits(table))
        config = with_precision(config, session.device, opened.size)
        prepared = prepare_training(config, opened, session.device)
        if start is not None:
            prepared.method.classifier.load_state_dict(start.model.classifier.state_dict())
            prepared.method.load_state_dict(start.beside, strict=False)
        with TemporaryDirectory() as own:
            with RunFolder(Path(broadcast(own)) / "run", "train", config) as folder:
                print_classes(config, opened, prepared)
                announce(config, prepared)
                run = TrainingRun(config, opened, prepared, session, folder)
                run.run()
            model = load_model(folder.path)
            barrier()
    losses = [float(row["train_loss"]) for row in run.history.rows]
    return Trained(model, _beside_classifier(prepared.method), losses, opened.train.skipped)


def _beside_classifier(method: Method) -> dict[str, Tensor]:
    own = {id(tensor) for tensor in method.classifier.state_dict(keep_vars=True).values()}
    state = method.state_dict(keep_vars=True)
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items() if id(tensor) not in own}


@final
class _AsWarnings(logging.Handler):
    """Messages as Python's warnings, on one rank, at the line of the user's code; once there."""

    told: ClassVar[set[tuple[str, str, int]]] = set()
    """Python's own memory of what was said is lost whenever a filter changes, as in every search of scikit-learn."""

    def emit(self, record: logging.LogRecord) -> None:
        level, text = user_level(), record.getMessage()
        frame = sys._getframe(level - 1)
        place = text, frame.f_code.co_filename, frame.f_lineno
        if is_main() and place not in self.told:
            self.told.add(place)
            warnings.warn(text, UserWarning, stacklevel=level)


@contextmanager
def _voice(verbose: bool) -> Iterator[None]:
    """The commands' messages, tables and bars, or their warnings alone, as Python's; afterwards as before."""
    before = log.handlers, log.level, log.propagate
    if verbose:
        configure(0)
    else:
        log.handlers, log.propagate = [_AsWarnings()], False
        log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.handlers, log.level, log.propagate = before
