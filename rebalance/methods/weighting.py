"""Class weights in the objective: a rule, how strong it is, and when it acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rebalance.counts import FloatArray, check_counts
from rebalance.schedules import Schedule
from rebalance.weights import class_weights


@dataclass(frozen=True)
class DrawnShares:
    """Share of each class among the draws, while a sampler goes from plain ones to those by its rule.

    Args:
        plain: Without the rule, (C,).
        by_rule: With the rule alone, (C,).
        factors: How much the rule acts in each epoch, (E,).
        n_updates: Length of training in updates.
        updates_per_epoch: Likewise of an epoch.
    """

    plain: FloatArray
    by_rule: FloatArray
    factors: FloatArray
    n_updates: int
    updates_per_epoch: int


@final
class ClassWeighting(nn.Module):
    """Weight of each sample by its class: (1 - f) + f · w_c, with f the schedule's factor.

    The weights are scaled so that the *drawn* samples have a mean weight of 1. The papers' codes divide each batch's
    loss by its sum of weights to the same end; a fixed scale does it without tying a sample's weight to its
    neighbours, and so holds under gradient accumulation and several processes.

    Args:
        counts: Training images of each class, (C,).
        rule: A weight rule, see `rebalance.weights`.
        strength: Exponent of the rule.
        schedule: When the rule acts.
        cb_beta: β of the effective number.
        shares: Share of each class among the draws, (C,), or how they change; by default its share of the images.
        custom: Weight by class name, for rule "custom".
        classes: Class names, for `custom` and for messages.
    """

    weight: Tensor
    means: Tensor

    def __init__(
        self,
        counts: npt.ArrayLike,
        rule: str = "none",
        *,
        strength: float = 1.0,
        schedule: Schedule | None = None,
        cb_beta: float | Literal["auto"] = "auto",
        shares: npt.ArrayLike | DrawnShares | None = None,
        custom: Mapping[str, float] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        n = check_counts(counts, classes)
        weight = class_weights(n, rule, strength=strength, cb_beta=cb_beta, custom=custom, classes=classes)
        if not isinstance(shares, DrawnShares):
            drawn = n / n.sum() if shares is None else np.asarray(shares, dtype=np.float64)
            shares = DrawnShares(drawn, drawn, np.ones(1), 1, 1)
        self.rule = rule
        self.schedule = schedule or Schedule()
        self.draws = shares
        self.register_buffer("weight", torch.from_numpy(weight / (shares.plain @ weight)), persistent=False)
        means = 1.0 + ((shares.by_rule @ weight) / (shares.plain @ weight) - 1.0) * shares.factors
        self.register_buffer("means", torch.from_numpy(means).float(), persistent=False)

    @property
    def changes_nothing(self) -> bool:
        """Whether every class weighs the same whenever the rule acts, or the rule never acts."""
        equal = bool(torch.allclose(self.weight, torch.ones_like(self.weight)))
        return equal or (self.schedule.kind == "deferred" and self.schedule.start >= 1)

    def forward(self, targets: Tensor, progress: Tensor) -> Tensor:
        """Weights (B,) float32 of class ids (B,)."""
        factor = self.schedule(progress.float())
        update = (progress.float() * self.draws.n_updates).round().long()
        epoch = (update // self.draws.updates_per_epoch).clamp(0, len(self.means) - 1)
        weight = self.weight[targets].float() / self.means.index_select(0, epoch.view(1))  # an index would wait
        return torch.lerp(torch.ones((), device=targets.device), weight, factor)
