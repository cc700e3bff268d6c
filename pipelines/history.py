"""What a training did, update by update and epoch by epoch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, final

import torch

from pipelines.loop import Step
from pipelines.session import Session, track
from rebalance.errors import RunError
from rebalance.files import write_csv
from rebalance.ranks import sum_over_ranks, world_size

FLUSH_UPDATES = 50
"""Updates whose losses stay on the device before they are read: reading waits for it."""


@final
class History:
    """Losses as they come, one row per epoch, and the tracker's numbers.

    Args:
        session: Has the tracker.
        state: Of a checkpoint, to go on from; nothing for a new training.
    """

    def __init__(self, session: Session, state: dict[str, Any] | None = None) -> None:
        self._session = session
        state = state or {"rows": [], "sums": {}, "n_images": 0}
        self.rows: list[dict[str, Any]] = state["rows"]
        self._sums: dict[str, float] = state["sums"]
        self._n_images: int = state["n_images"]
        self._waiting: list[Step] = []

    def state(self) -> dict[str, Any]:
        """Plain values to save; `flush` first."""
        return {"rows": self.rows, "sums": self._sums, "n_images": self._n_images}

    def add(self, step: Step) -> None:
        """Remember an update; its losses are read later."""
        self._waiting.append(step)
        if len(self._waiting) >= FLUSH_UPDATES:
            self.flush()

    def flush(self) -> None:
        """Read the losses of the remembered updates.

        Raises:
            RunError: A loss that is not finite.
        """
        if not self._waiting:
            return
        names = list(self._waiting[0].terms)
        values = torch.stack([torch.stack([step.terms[name] for name in names]) for step in self._waiting])
        sum_over_ranks([values])
        steps, self._waiting = self._waiting, []
        for step, row in zip(steps, (values.double() / world_size()).tolist(), strict=True):
            terms = dict(zip(names, row, strict=True))
            loss = math.fsum(row)
            if not math.isfinite(loss):
                raise RunError(
                    f"the loss of update {step.update} is {loss} ({terms}); the last checkpoint is from before it: "
                    "lower --lr, add --clip-grad 1, or use --amp no"
                )
            track(self._session, {"train/loss": loss, "train/lr": step.lr, **_prefixed("train", terms)}, step.update)
            for name, value in {"loss": loss, **terms}.items():
                self._sums[name] = self._sums.get(name, 0.0) + value * step.n_images
            self._n_images += step.n_images

    def end_epoch(self, step: Step, seconds: float, figures: dict[str, float | None]) -> dict[str, Any]:
        """Close the epoch that `step` ended, with validation figures if there are any; its row."""
        self.flush()
        means = {f"train_{name}": total / self._n_images for name, total in self._sums.items()}
        validation = {f"val_{name}": value for name, value in figures.items()}
        row = {"epoch": step.epoch, "updates": step.update, "lr": step.lr, **means, **validation, "seconds": seconds}
        self.rows.append(row)
        self._sums, self._n_images = {}, 0
        numbers = {name: value for name, value in row.items() if isinstance(value, float)}
        track(self._session, _prefixed("epoch", numbers), step.update)
        return row


def write_history(path: Path, rows: list[dict[str, Any]]) -> None:
    """`history.csv`: one row per epoch, every column that any row has; empty where there is no figure."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(path, columns, ([_short(row.get(name)) for name in columns] for row in rows))


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _prefixed(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}
