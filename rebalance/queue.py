"""A ring of past embeddings and their classes, the same on every rank: the memory of MoCo, PaCo and GPaCo."""

from __future__ import annotations

from typing import Any, Literal, Self, final

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.errors import InputError
from rebalance.ranks import world_size


@final
class FeatureQueue(nn.Module):
    """The last `size` keys of all ranks, with their class ids.

    Batches of any size, different ones on different ranks included. Keys are kept in the buffer's dtype, float32,
    whatever they come in.

    Args:
        size: Keys that fit, 8192 in PaCo, 1024 on CIFAR.
        dim: D.
        init: "empty": what comes out is what was put in. "official": full from the start, as in the original, of
            random keys normalised over the queue (so of length ~ sqrt(D / size), not 1) with random classes; under
            DDP rank 0's are everyone's.
        n_classes: Classes to draw from, for "official".

    Raises:
        InputError: A size below 1, an unknown `init`, or "official" without `n_classes`.
    """

    keys: Tensor
    targets: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(
        self, size: int, dim: int, *, init: Literal["empty", "official"] = "empty", n_classes: int | None = None
    ) -> None:
        super().__init__()
        if size < 1:
            raise InputError("a queue size >= 1", str(size), "train without a queue where it should hold nothing")
        if init not in ("empty", "official"):
            raise InputError("init 'empty' or 'official'", repr(init), "name one of the two")
        keys, targets = torch.zeros(size, dim, dtype=torch.float32), torch.zeros(size, dtype=torch.int64)
        if init == "official":
            if n_classes is None:
                raise InputError("n_classes for init 'official'", "none", "pass the number of classes")
            keys, targets = F.normalize(torch.randn(size, dim), dim=0), torch.randint(n_classes, (size,))
        self.register_buffer("keys", keys)
        self.register_buffer("targets", targets)
        n = 0 if init == "empty" else size
        self.register_buffer("pointer", torch.tensor(0))
        self.register_buffer("filled", torch.tensor(n))
        # `filled` without waiting for the device, while the buffer is the one that it was read from and unchanged.
        self._read = (self.filled, self.filled._version, n)

    def forward(self) -> tuple[Tensor, Tensor]:
        """The keys (Q, D) and their class ids (Q,), as copies, Q from 0 to `size`."""
        n = self._n_filled()
        return self.keys[:n].clone(), self.targets[:n].clone()

    @torch.no_grad()
    def enqueue(self, keys: Tensor, targets: Tensor) -> None:
        """Put in the keys (B, D) and targets (B,) of all ranks, in the order of the ranks; the oldest leave.

        Raises:
            InputError: Keys and targets that do not fit each other or the queue.
        """
        if keys.ndim != 2 or keys.shape[1] != self.keys.shape[1] or targets.shape != keys.shape[:1]:
            raise InputError(
                f"keys (B, {self.keys.shape[1]}) and targets (B,)",
                f"{tuple(keys.shape)} and {tuple(targets.shape)}",
                "pass one view's embeddings and the class ids of its images",
            )
        size = len(self.keys)
        gathered = all_gather_rows(keys.detach().to(self.keys), targets.to(self.targets))
        keys, targets = (rows[-size:] for rows in gathered)
        slots = (self.pointer + torch.arange(len(keys), device=self.pointer.device)) % size
        self.keys[slots] = keys
        self.targets[slots] = targets
        self.pointer.add_(len(keys)).remainder_(size)
        n = min(self._n_filled() + len(keys), size)
        self.filled.fill_(n)
        self._read = (self.filled, self.filled._version, n)

    def extra_repr(self) -> str:
        """How many keys fit, D, and how many there are."""
        return f"{len(self.keys)}, {self.keys.shape[1]}, filled={self._n_filled()}"

    def _is_known(self) -> bool:
        buffer, version, _ = self._read
        return buffer is self.filled and version == buffer._version

    def _n_filled(self) -> int:
        if not self._is_known():
            self._read = (self.filled, self.filled._version, int(self.filled))
        return self._read[2]

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """Another device holds as many."""
        known = self._is_known()
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]  # of torch
        if known:
            self._read = (self.filled, self.filled._version, self._read[2])
        return self


def all_gather_rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Each tensor (N, …) with the rows of every rank, (Σ N, …), in the order of the ranks, without gradient.

    Ranks may hold different numbers of rows, but each the same number in all its tensors. In a single process the
    tensors come back as they are.
    """
    world = world_size()
    if world == 1:
        return tensors
    n_rows = torch.tensor([len(tensors[0])], device=tensors[0].device)
    rows_of_ranks = [torch.zeros_like(n_rows) for _ in range(world)]
    dist.all_gather(rows_of_ranks, n_rows)
    sizes = [int(n) for n in rows_of_ranks]
    gathered = []
    for tensor in tensors:
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
        padded[: len(tensor)] = tensor.detach()
        parts = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(parts, padded)
        gathered.append(torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]))
    return tuple(gathered)
