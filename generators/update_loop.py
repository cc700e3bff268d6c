"""The updates of a generator's training: warm-up, clipping, checkpoints, and an end between two updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from rebalance.checkpoints import load_checkpoint, save_checkpoint
from rebalance.errors import RunError
from rebalance.interruption import Interruption
from rebalance.ranks import barrier, is_main

READ_UPDATES = 50
"""Updates between two looks at the loss: each waits for the device."""


@final
class UpdateLoop:
    """Loads the last checkpoint when it is made, then runs the updates that are left.

    Args:
        optimizer: Its groups have their full learning rates.
        modules: What a checkpoint holds, by name.
        updates: Length of the whole training.
        checkpoint_updates: Updates between two checkpoints.
        checkpoints: Folder to save to and to go on from.
        name: Of what is trained, for messages.
        flag: That lowers its learning rate, for messages.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        modules: Mapping[str, nn.Module],
        *,
        updates: int,
        checkpoint_updates: int,
        checkpoints: Path | None,
        name: str,
        flag: str,
    ) -> None:
        self.optimizer = optimizer
        self.modules = modules
        self.updates = updates
        self.checkpoint_updates = checkpoint_updates
        self.checkpoints = checkpoints
        self.name = name
        self.flag = flag
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state = load_checkpoint(checkpoints, modules, optimizer) if checkpoints is not None else None
        self.start: int = state["update"] if state is not None else 0

    def run(
        self,
        step: Callable[[int], Tensor],
        *,
        after: Callable[[int], None] = lambda update: None,
        progress: Callable[[int, float], None] = lambda update, loss: None,
    ) -> None:
        """Take the updates.

        Args:
            step: Leaves the gradient of an update, and returns its loss.
            after: Called after an optimiser step with the number of updates before it.
            progress: Told of updates done, and of the loss now and then, else NaN.

        Raises:
            RunError: A loss or weights that are not finite; the last good checkpoint stays.
        """
        if self.start:
            progress(self.start, float("nan"))
        with Interruption() as interruption:
            for update in range(self.start, self.updates):
                for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                    group["lr"] = rate * min(1.0, (update + 1) / max(1, self.updates // 10))
                loss = step(update)
                nn.utils.clip_grad_norm_(self.parameters, 1.0)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                after(update)
                done = update + 1
                due = done % self.checkpoint_updates == 0 or done == self.updates
                progress(1, self._read(loss, done) if due or done % READ_UPDATES == 0 else float("nan"))
                stopping = interruption.heard is not None
                if due or stopping:
                    self._save(done)
                if stopping:
                    interruption.act()

    def _read(self, loss: Tensor, done: int) -> float:
        value = float(loss)
        if not np.isfinite(value):
            raise RunError(f"the loss of the {self.name} after {done} updates is {value}; lower {self.flag}")
        return value

    def _save(self, done: int) -> None:
        if not all(torch.isfinite(parameter).all() for parameter in self.parameters):
            raise RunError(f"the weights of the {self.name} after {done} updates are not finite; lower {self.flag}")
        if self.checkpoints is not None:
            if is_main():
                save_checkpoint(self.checkpoints, done, self.modules, self.optimizer, {})
            barrier()
