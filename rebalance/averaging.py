"""Exponential moving average of a module: weights and batch-norm statistics."""

from __future__ import annotations

from copy import deepcopy
from typing import Generic, TypeVar, cast, final

import torch
from torch import nn

from rebalance.errors import InputError

M = TypeVar("M", bound=nn.Module)


@final
class MovingAverage(nn.Module, Generic[M]):
    """A copy of a module that follows it: average ← d · average + (1 - d) · module.

    The decay warms up, d = min(decay, (1 + t) / (10 + t)) after t updates, so that a short training is not an
    average with its random start. Floating-point buffers are averaged, others copied. The copy is in evaluation mode.

    Args:
        module: The module to follow; it is copied. Of one that is compiled or wrapped for several processes, what is
            within is.
        decay: The decay that the warm-up ends at, in [0, 1).

    Raises:
        InputError: A decay out of range.

    Examples:
        >>> module = nn.Linear(3, 2)
        >>> average = MovingAverage(module, 0.99)
        >>> for update in range(5):
        ...     average.update(module, update)  # after each step of the optimiser
        >>> average.average(torch.randn(4, 3)).shape
        torch.Size([4, 2])
    """

    def __init__(self, module: M, decay: float = 0.999) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise InputError("a decay in [0, 1)", repr(decay), "use for example 0.999; 0 is a plain copy")
        self.average = deepcopy(cast(M, _unwrapped(module))).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, t: int) -> None:
        """Move towards `module`, wrapped or compiled or not, after its optimiser step number `t`, counted from 0."""
        decay = min(self.decay, (1 + t) / (10 + t))
        ours, theirs = self.average.state_dict(), _unwrapped(module).state_dict()
        floats = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in floats], [theirs[name] for name in floats], 1 - decay)
        for name in ours.keys() - floats:
            ours[name].copy_(theirs[name])


def _unwrapped(module: nn.Module) -> nn.Module:
    """What torch.compile, DataParallel or DistributedDataParallel have around it."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(compiled := getattr(module, "_orig_mod", None), nn.Module):
            module = compiled
        else:
            return module
