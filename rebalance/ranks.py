"""What the processes of one training need from one another; with a single process, nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from rebalance.counts import IntArray
from rebalance.errors import InputError

T = TypeVar("T")


def rank() -> int:
    """This process's number; 0 alone prints and writes what is shared."""
    return dist.get_rank() if _grouped() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _grouped() else 1


def is_main() -> bool:
    """Whether this process is rank 0."""
    return rank() == 0


def barrier() -> None:
    """Wait for all."""
    if _grouped():
        dist.barrier()


def broadcast(value: T) -> T:
    """Rank 0's value, on every rank; small things only."""
    if not _grouped():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: T) -> list[T]:
    """Every rank's value, on every rank, in order of rank; small things only."""
    if not _grouped():
        return [value]
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]  # filled by the line above


def sum_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over the ranks, in place."""
    if _grouped():
        for tensor in tensors:
            if tensor.numel():
                dist.all_reduce(tensor)


def broadcast_state(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0; DDP keeps the former equal, not the latter."""
    if _grouped():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


def shard(rows: IntArray) -> IntArray:
    """This rank's part of a global batch: every world-size-th row."""
    return rows[rank() :: world_size()]


def split_batches(n_rows: int, batch_size: int) -> list[tuple[int, int]]:
    """Bounds of the global batches of an epoch: the same number of steps on every rank, every row once.

    A remainder of fewer than two rows a rank joins the batch before it, since batch norm needs two.
    """
    bounds = [*range(0, n_rows, batch_size), n_rows]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] < 2 * world_size():
        del bounds[-2]
    return list(pairwise(bounds))


def seed_everything(*parts: int) -> None:
    """Seed torch's global generators, of the CPU and of the accelerator in use, from numbers such as (seed, update)."""
    seed = derive_seed(*parts)
    torch.default_generator.manual_seed(seed)
    # torch.manual_seed costs 3 ms where CUDA is built in and not in use: it keeps the call, with its stack, for later.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed(seed)


def derive_seed(*parts: int) -> int:
    """A 32-bit seed from whole numbers >= 0; CPU generators use no more bits.

    Raises:
        InputError: A negative number.
    """
    if min(parts) < 0:
        raise InputError("a seed >= 0", str(min(parts)), "use for example --seed 0")
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def end_with_parent(poll_seconds: float = 0.5) -> None:
    """End this process when its launcher is gone, so that a killed launcher leaves no rank writing."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(poll_seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()
