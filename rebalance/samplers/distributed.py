"""DistributedEpochSampler: one rank's part of any sampler, for loops that shard by themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch.distributed
from torch.utils.data import Sampler

from rebalance.counts import IntArray
from rebalance.errors import InputError
from rebalance.samplers.base import BatchSampler, Feed, SeededSampler, check_whole, log
from rebalance.samplers.epoch import EpochSampler
from rebalance.samplers.foreign import ForeignSampler
from rebalance.samplers.sharding import find_sharder

_ROWS_AT_A_TIME = 1 << 14


class DistributedEpochSampler(Sampler[Any]):
    """The part of one rank: draw i of an epoch goes to rank i mod `num_replicas`.

    Put together, the parts are the epoch of one process: nothing is left out, nothing comes twice.

    - Over an `EpochSampler` it yields rows, for `DataLoader(sampler=…)`. Ranks get the same number, or one more where
      the epoch does not divide; `drop_last=True` leaves that remainder out.
    - With `batch_size` it yields batches, for `DataLoader(batch_sampler=…)`, the same number of them on every rank
      whatever the epoch's length, as DistributedDataParallel needs: a remainder of less than a row a rank joins the
      batch before.
    - Over a batch sampler (`ClassBatchSampler`, `MixedSourceSampler`) it yields the rank's part of every batch.
    - Over a `SeededSampler` of your own it yields rows: those of its `chunks()`, like `EpochSampler.chunks`, or else
      those of its iteration, which must be the `num_samples` of an epoch without the consumed ones.
    - Over a torch sampler of rows, from any package, it draws as `ForeignSampler` does: the same order on every rank.

    Not together with what shards by itself, or a part of a part is drawn: with accelerate, give the sampler of one
    process to the `DataLoader` and `prepare` that; with Lightning, pass `Trainer(use_distributed_sampler=False)` and
    make the loader in `train_dataloader`, where the rank is known.

    Its state is that of the whole epoch: it resumes under another number of ranks.

    Args:
        sampler: The sampler of one process, of this package or any torch sampler of rows; or labels or a data set for a
            new `EpochSampler`.
        num_replicas: Number of ranks; by default that of torch.distributed, or of the launcher's WORLD_SIZE, or 1.
        rank: This rank; by default that of torch.distributed, or of the launcher's RANK, or 0 of 1.
        batch_size: Rows of a batch on this rank; None to yield rows.
        drop_last: Leave out what does not divide: rows over the ranks, or the last batch where it is not full.
        options: Arguments of the new `EpochSampler`; `seed` beside a torch sampler.

    Raises:
        InputError: A rank out of range or unknown, an epoch or batch with less than a row a rank, or a torch sampler
            that `ForeignSampler` refuses; while iterating, a sampler of your own that draws other than it says.

    Examples:
        >>> parts = [list(DistributedEpochSampler(range(5), num_replicas=2, rank=rank)) for rank in range(2)]
        >>> sorted(parts[0] + parts[1]), [len(part) for part in parts]
        ([0, 1, 2, 3, 4], [3, 2])
    """

    def __init__(
        self,
        sampler: Any,
        *,
        num_replicas: int | None = None,
        rank: int | None = None,
        batch_size: int | None = None,
        drop_last: bool = False,
        **options: Any,
    ) -> None:
        self.sampler = _whole(sampler, options)
        world = _launched_ranks() if num_replicas is None else num_replicas
        self.num_replicas = check_whole(world, "num_replicas", least=1)
        here = _launched_rank() if rank is None else rank
        if here is None and self.num_replicas > 1:
            raise InputError(
                f"a rank out of {self.num_replicas}",
                "none, and no RANK",
                "pass rank=, or make the sampler after torch.distributed started",
            )
        self.rank = check_whole(0 if here is None else here, "rank")
        if self.rank >= self.num_replicas:
            raise InputError(f"a rank below {self.num_replicas}", str(self.rank), "count the ranks from 0")
        self.batch_size = None if batch_size is None else check_whole(batch_size, "batch_size", least=1)
        self.drop_last = drop_last
        self._sharded_once = self.num_replicas == 1  # or the warning that it is not was given
        self._check_sizes()

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration draws."""
        return self.sampler.epoch

    def set_epoch(self, epoch: int) -> None:
        """As `SeededSampler.set_epoch`, forwarded."""
        self.sampler.set_epoch(epoch)

    def consumed(self, n: int) -> None:
        """As `SeededSampler.consumed`, forwarded: `n` draws of all ranks together."""
        self.sampler.consumed(n)

    def state_dict(self) -> dict[str, Any]:
        """The state of the whole epoch."""
        return self.sampler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As `SeededSampler.load_state_dict`, forwarded."""
        self.sampler.load_state_dict(state_dict)

    def __iter__(self) -> Iterator[Any]:
        self._tell_of_sharder()
        if isinstance(self.sampler, BatchSampler) or hasattr(self.sampler, "chunks"):
            self.sampler.begin()  # others do as they are iterated
        if isinstance(self.sampler, BatchSampler):
            for batch in self.sampler.batches():
                yield batch[self.rank :: self.num_replicas].tolist()
            return
        rest = self.sampler.num_samples - self.sampler.state_dict()["consumed"]
        feed = Feed(self._chunks(rest))
        for size in self._sizes(rest):
            part = feed.take(size)[self.rank :: self.num_replicas].tolist()
            if self.batch_size is None:
                yield from part
            else:
                yield part

    def __repr__(self) -> str:
        batches = "" if self.batch_size is None else f", batch_size={self.batch_size}"
        return f"{type(self).__name__}({self.sampler!r}, num_replicas={self.num_replicas}, rank={self.rank}{batches})"

    def __len__(self) -> int:
        """Rows or batches of a whole epoch on this rank, also when resumed in the middle of one."""
        if isinstance(self.sampler, BatchSampler):
            return len(self.sampler)
        sizes = self._sizes(self.sampler.num_samples)
        if self.batch_size is not None:
            return len(sizes)
        return sum(len(range(self.rank, size, self.num_replicas)) for size in sizes)

    def _chunks(self, rest: int) -> Iterator[IntArray]:
        """The `rest` rows of the epoch that are not consumed yet, some at a time."""
        chunks = iter(self.sampler.chunks() if hasattr(self.sampler, "chunks") else _iterated(self.sampler))
        n = 0
        for chunk in chunks:
            n += chunk.size
            if n == rest:
                n += sum(more.size for more in islice(chunks, 1))
            if n > rest:
                break
            yield chunk
        if n != rest:
            raise InputError(
                f"the {rest} rows that are left of an epoch of {type(self.sampler).__name__}",
                "more" if n > rest else str(n),
                "draw num_samples rows an epoch, and leave out those consumed",
            )

    def _sizes(self, rows: int) -> list[int]:
        """How many of the next `rows` draws all ranks take together, time after time."""
        step = self.num_replicas * (self.batch_size or _ROWS_AT_A_TIME)
        if self.drop_last:
            rows -= rows % (self.num_replicas if self.batch_size is None else step)
        sizes = [step] * (rows // step)
        rest = rows % step
        if rest and sizes and self.batch_size is not None and rest < self.num_replicas:
            sizes[-1] += rest
        elif rest and (self.batch_size is None or rest >= self.num_replicas):
            sizes.append(rest)  # else a resume under more ranks left less than a row for each
        return sizes

    def _tell_of_sharder(self) -> None:
        sharder = None if self._sharded_once else find_sharder()
        if sharder is not None:
            self._sharded_once = True
            log.warning(
                "%s shards a DistributedEpochSampler, which is one rank's part: half of the draws or more are lost; %s",
                sharder,
                "give the DataLoader the sampler of one process"
                if sharder.startswith("accelerate")
                else "pass Trainer(use_distributed_sampler=False)",
            )

    def _check_sizes(self) -> None:
        batched = isinstance(self.sampler, BatchSampler)
        if batched and (self.batch_size is not None or self.drop_last):
            raise InputError(
                "batch_size and drop_last beside rows",
                f"{type(self.sampler).__name__}, which yields batches",
                "set them there",
            )
        rows = self.sampler.smallest_batch if isinstance(self.sampler, BatchSampler) else self.sampler.num_samples
        if rows < self.num_replicas or not len(self):
            raise InputError(
                f"at least one row for each of {self.num_replicas} ranks",
                f"{'a batch' if batched else 'an epoch'} of {rows}",
                "use larger batches, fewer ranks, or drop_last=True where only the last batch is small",
            )


def _whole(sampler: Any, options: dict[str, Any]) -> SeededSampler[Any]:
    """The sampler of all ranks together."""
    if not isinstance(sampler, Sampler):
        return EpochSampler(sampler, **options)
    ours = isinstance(sampler, SeededSampler)
    wrong = [name for name in options if ours or name != "seed"]
    if wrong:
        raise InputError("options beside labels only", ", ".join(wrong), "pass them to the sampler itself")
    return sampler if isinstance(sampler, SeededSampler) else ForeignSampler(sampler, **options)


def _iterated(sampler: SeededSampler[Any]) -> Iterator[IntArray]:
    """What iterating yields, some rows at a time."""
    rows = iter(sampler)
    while chunk := list(islice(rows, _ROWS_AT_A_TIME)):
        if not all(isinstance(row, (int, np.integer)) for row in chunk):
            raise InputError(
                "a sampler of rows", f"{type(sampler).__name__}, of something else", "derive it from BatchSampler"
            )
        yield np.array(chunk, dtype=np.int64)


def _launched_ranks() -> int:
    """Number of ranks, as torch.distributed or the launcher says."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1"))


def _launched_rank() -> int | None:
    """This rank, as torch.distributed or the launcher says; None where neither does."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    rank = os.environ.get("RANK")
    return None if rank is None else int(rank)
