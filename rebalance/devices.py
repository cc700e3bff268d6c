"""The device that a name means, and torch's random state left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rebalance.errors import InputError


def pick_device(name: str) -> torch.device:
    """The device of "auto" (the accelerator if there is one), "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        InputError: No such device on this machine.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for CUDA
        raise InputError("a device of this machine", repr(name), "use auto, or cpu") from error
    return device


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Put torch's global generators, of the CPU and of `device`, back in their state at the end."""
    devices = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        yield
