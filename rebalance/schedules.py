"""Progress → factor: when a rule acts, and how the learning rate moves.

`progress` is the share of updates done, in [0, 1), a float or a 0-dim tensor: a schedule stretches with training,
and 160 of 200 epochs is 0.8 whatever the budget. A factor f mixes plain and re-balanced, (1 - f) · plain + f · rule:

    none           f = 1              the rule acts all the time
    deferred:s     f = [progress ≥ s] DRW and DRS (Cao et al., NeurIPS 2019), s = 0.8 in the paper
    progressive    f = progress       progressively-balanced sampling (Kang et al., ICLR 2020, eq. 3)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from rebalance.errors import InputError, nearest

if TYPE_CHECKING:
    from torch import Tensor

Progress = TypeVar("Progress", float, "Tensor")
LEARNING_RATE_SCHEDULES = ("step", "cosine", "constant")


@dataclass(frozen=True)
class Schedule:
    """A factor in [0, 1] as a function of progress.

    Args:
        kind: "none", "deferred" or "progressive".
        start: The progress from which a deferred schedule acts.
    """

    kind: Literal["none", "deferred", "progressive"] = "none"
    start: float = 0.0

    def __call__(self, progress: Progress) -> Progress:
        """The factor at `progress`; branch-free, so a compiled step does not recompile as training goes on."""
        if self.kind == "progressive":
            return progress
        return 1.0 * (progress >= self.start)  # bool → float, or bool → float32 tensor

    def __str__(self) -> str:
        return f"deferred:{self.start:g}" if self.kind == "deferred" else self.kind


def parse_schedule(text: str) -> Schedule:
    """A schedule from its name: "none", "deferred:0.8" or "progressive".

    Raises:
        InputError: Unknown name, or a start outside [0, 1].
    """
    kind, _, start = text.partition(":")
    if kind in ("none", "progressive") and not start:
        return Schedule(kind)  # type: ignore[arg-type]  # narrowed by the line above
    if kind != "deferred":
        raise InputError("a schedule", repr(text), nearest(text, ("none", "deferred:0.8", "progressive")))
    try:
        value = float(start) if start else 0.8
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise InputError("deferred:S with S in [0, 1]", repr(text), "write for example deferred:0.8")
    return Schedule("deferred", value)


def learning_rate_factor(
    epoch: float,
    epochs: float,
    *,
    schedule: str = "step",
    warmup_epochs: float = 5,
    milestones: tuple[float, ...] = (0.8, 0.9),
    factors: tuple[float, ...] = (0.01, 0.0001),
) -> float:
    """Learning rate at the 0-based `epoch`, as a multiple of the base rate.

    Linear warm-up by whole epochs, (⌊epoch⌋ + 1) / warmup_epochs, or by fifths of a warm-up of less than two; then
    "step": `factors[i]` from `milestones[i] · epochs` on (LDAM-DRW's 160 and 180 of 200), "cosine": half a cosine to 0,
    or "constant".

    Args:
        epoch: Epochs done, fractions allowed.
        epochs: Length of the whole training, fractions allowed.
        schedule: The shape after the warm-up.
        warmup_epochs: Length of the warm-up; 0 for none.
        milestones: Shares of training, ascending.
        factors: Multiple of the base rate from each milestone on.

    Raises:
        InputError: An unknown schedule.
    """
    if epoch < warmup_epochs:
        rung = 1.0 if warmup_epochs >= 2 else warmup_epochs / 5
        return min(1.0, (math.floor(epoch / rung) + 1) * rung / warmup_epochs)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        done = (epoch - warmup_epochs) / max(epochs - warmup_epochs, 1e-9)
        return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
    if schedule == "step":
        factor = 1.0
        for milestone, value in zip(milestones, factors, strict=True):
            if epoch >= milestone * epochs:
                factor = value
        return factor
    raise InputError("a learning rate schedule", repr(schedule), nearest(schedule, LEARNING_RATE_SCHEDULES))
