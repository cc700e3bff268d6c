"""Which kernels the device may use: the fastest, or with `--deterministic` those that give the same bits every time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def kernels(*, deterministic: bool, timed: bool = True) -> Iterator[None]:
    """Choose kernels for what runs inside; the process's own choice comes back after it.

    On a CPU the kernels are the same either way.

    Args:
        deterministic: Refuse operations that have no deterministic kernel, by PyTorch's own message, and choose none
            by time.
        timed: Without `deterministic`, let cuDNN time its convolutions for the shapes at hand and take the fastest,
            which may be another one, with other roundings, in the next process.
    """
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, os.environ.get(_WORKSPACE)
    if deterministic and before[2] is None:
        os.environ[_WORKSPACE] = ":4096:8"  # cuBLAS reads it when its first handle is made
    torch.use_deterministic_algorithms(deterministic or before[0])
    cudnn.benchmark = timed and not (deterministic or before[0])
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark = before[1]
        if before[2] is None:
            os.environ.pop(_WORKSPACE, None)
