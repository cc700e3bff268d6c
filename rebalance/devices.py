"""The device that a name means, and torch's random state left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rebalance.errors import InputError


def pick_device(name: str) -> torch.device:
    """The device of "auto" (a CUDA GPU if there is one), "cpu", "cuda" or "cuda:1".

    Raises:
        InputError: No such device on this machine, or one that has no float64, as Apple's.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    refuse_without_float64(name)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for CUDA
        raise InputError("a device of this machine", repr(name), "use auto, or cpu") from error
    return device


def refuse_without_float64(name: str) -> None:
    """Priors, margins, class weights and figures are kept in float64.

    Raises:
        InputError: A device that has none.
    """
    if name.partition(":")[0] == "mps":
        raise InputError("a device with float64: cpu or cuda", repr(name), "use --device cpu")


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Put torch's global generators, of the CPU and of `device`, back in their state at the end."""
    devices = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        yield
