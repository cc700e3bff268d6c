"""Exponential moving average of a module: weights and batch-norm statistics."""

from __future__ import annotations

from copy import deepcopy
from typing import Generic, TypeVar, final

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


@final
class MovingAverage(nn.Module, Generic[M]):
    """A copy of a module that follows it: average ← d · average + (1 - d) · module.

    The decay warms up, d = min(decay, (1 + t) / (10 + t)) after t updates, so that a short training is not an
    average with its random start. Floating-point buffers are averaged, others copied.

    Args:
        module: The module to follow; it is copied.
        decay: The decay that the warm-up ends at.
    """

    def __init__(self, module: M, decay: float = 0.999) -> None:
        super().__init__()
        self.average = deepcopy(module).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: M, t: int) -> None:
        """Move towards `module` after its optimiser step number `t`, counted from 0."""
        decay = min(self.decay, (1 + t) / (10 + t))
        ours, theirs = self.average.state_dict(), module.state_dict()
        floats = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in floats], [theirs[name] for name in floats], 1 - decay)
        for name in ours.keys() - floats:
            ours[name].copy_(theirs[name])
