"""A slow copy of a network, the key encoder of MoCo and PaCo: θ_k ← m θ_k + (1 - m) θ_q."""

from __future__ import annotations

import copy
from typing import Any, final

import torch
from torch import nn

from rebalance.errors import InputError


@final
class MomentumEncoder(nn.Module):
    """Exponential moving average of an encoder's parameters.

    Parameters carry no gradient, so that an optimiser and DDP pass them by. Buffers are the copy's own: its batch
    norms gather running statistics from the keys, as in the originals, which also shuffle keys across ranks before
    batch norm (here a matter of the caller).

    Args:
        encoder: The network to follow; copied, not kept.
        momentum: m in [0, 1].

    Raises:
        InputError: m outside [0, 1].
    """

    def __init__(self, encoder: nn.Module, *, momentum: float = 0.999) -> None:
        super().__init__()
        if not 0.0 <= momentum <= 1.0:
            raise InputError("a momentum in [0, 1]", repr(momentum), "use 0.999, or 0.99 for short trainings")
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.momentum = momentum

    @torch.no_grad()
    def update(self, encoder: nn.Module) -> None:
        """One step towards the parameters of `encoder`, once per optimiser step."""
        for slow, fast in zip(self.encoder.parameters(), encoder.parameters(), strict=True):
            slow.lerp_(fast.to(slow.dtype), 1.0 - self.momentum)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """What the slow encoder makes of the inputs, without gradient."""
        return self.encoder(*inputs)
