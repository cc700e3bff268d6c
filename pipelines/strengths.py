"""The strength of what is done to a trained classifier: as given, or chosen on the validation split, never on test."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipelines.console import log
from rebalance.errors import InputError
from rebalance.metrics import Tally

STRENGTHS = tuple(step / 10 for step in range(21))
"""What is tried: 0, which changes nothing, to 2."""
DEFAULT_STRENGTH = 1.0


@torch.no_grad()
def choose_strength(
    tau: str, found: tuple[Tensor, Tensor] | None, logits: Callable[[float, Tensor], Tensor]
) -> tuple[float, dict[str, Any]]:
    """A strength, and how it was chosen, for the run's metrics.

    Args:
        tau: A number, or "auto": the one of `STRENGTHS` with the best balanced accuracy on the validation split, or 1
            without such a split.
        found: What `logits` takes for the validation images, and their class ids (B,); None without a split.
        logits: Logits (B, C) at a strength.

    Raises:
        InputError: Neither a number nor "auto".
    """
    if tau != "auto":
        strength = _read_number(tau)
        return strength, {"tau": strength, "tau_by": "as given"}
    if found is None:
        log.info("tau is %g, the default: there is no validation split to choose it on", DEFAULT_STRENGTH)
        return DEFAULT_STRENGTH, {"tau": DEFAULT_STRENGTH, "tau_by": "default: there is no validation split"}
    inputs, targets = found
    accuracy = {value: _balanced_accuracy(logits(value, inputs), targets) for value in STRENGTHS}
    best = max(accuracy.values())
    # Of equally good ones that next to the default: with few images there are many.
    strength = min((v for v in STRENGTHS if accuracy[v] == best), key=lambda v: abs(v - DEFAULT_STRENGTH))
    log.info("tau is %g, by balanced accuracy on the validation split (%.1f %%)", strength, 100 * best)
    by = "balanced accuracy on the validation split"
    return strength, {"tau": strength, "tau_by": by, "tried": {f"{v:g}": accuracy[v] for v in STRENGTHS}}


def _read_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError("tau=auto or a number", f"tau={text}", "leave it out to have it chosen")
    return value


def _balanced_accuracy(logits: Tensor, targets: Tensor) -> float:
    tally = Tally(logits.shape[1], ["many"] * logits.shape[1], logits.device)
    tally.update(logits, targets)
    return float(tally.metrics()["balanced_accuracy"])
