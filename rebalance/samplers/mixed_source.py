"""MixedSourceSampler: batches with a fixed share of real rows beside synthetic ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from rebalance.counts import FloatArray, IntArray
from rebalance.draws import check_draws
from rebalance.errors import InputError
from rebalance.samplers.base import BatchSampler, Feed, check_whole
from rebalance.samplers.epoch import EpochSampler


class MixedSourceSampler(BatchSampler):
    """Batches of `round(real_share · batch_size)` real rows, then synthetic ones.

    Where the share does not divide the batch, batches take turns, so that after every batch the real rows so far are
    `real_share` of all rows, rounded. Rows 0 … n - 1 are the real ones; synthetic row i is n + i.

    Args:
        real: Sampler of the real rows; its rule and schedule apply, its `num_samples` does not.
        synthetic: Sampler of the synthetic rows; None where there are none, then every row is real.
        batch_size: Rows of a batch, over all ranks together.
        real_share: Share of real rows, in [0, 1].
        num_samples: Rows of an epoch; by default `real.num_samples`, whatever is mixed in.
        drop_last: Leave out a last batch that is not full.

    Raises:
        InputError: A number out of range.

    Examples:
        >>> sampler = MixedSourceSampler(EpochSampler([0, 0, 1]), EpochSampler([1]), batch_size=2, real_share=0.5)
        >>> [[row >= 3 for row in batch] for batch in sampler]
        [[False, True], [False]]
    """

    def __init__(
        self,
        real: EpochSampler,
        synthetic: EpochSampler | None,
        *,
        batch_size: int,
        real_share: float,
        num_samples: int | None = None,
        drop_last: bool = False,
    ) -> None:
        if not 0.0 <= real_share <= 1.0:
            raise InputError(
                "real_share in [0, 1]", repr(real_share), "use 0.5 for as many real rows as synthetic ones"
            )
        self.real, self.synthetic = real, synthetic
        self.batch_size = check_whole(batch_size, "batch_size", least=1)
        self.real_share = real_share if synthetic is not None else 1.0
        n = check_draws(real.num_samples if num_samples is None else num_samples, "num_samples")
        self.num_samples = n - n % batch_size if drop_last else n
        if self.num_samples == 0:
            raise InputError("at least one full batch", f"{n} rows", "use a smaller batch, or drop_last=False")
        self.smallest_batch = self.num_samples % batch_size or min(batch_size, self.num_samples)
        self.seed = real.seed

    def expected_counts(self, epoch: int = 0) -> tuple[FloatArray, FloatArray]:
        """Draws of each class in `epoch` among the real and among the synthetic rows, each of shape (C,)."""
        n_real = self._real_until(self.num_samples)
        n_synthetic = self.num_samples - n_real
        real = self.real.expected_shares(epoch) * n_real
        if self.synthetic is None:
            return real, np.zeros_like(real)
        return real, self.synthetic.expected_shares(epoch) * n_synthetic

    def batches(self) -> Iterator[IntArray]:
        """The batches of the epoch that are not consumed yet, as int64 arrays: real rows, then synthetic ones."""
        n_real = self._real_until(self.num_samples)
        done = self._consumed
        real = self._feed(self.real, n_real, self._real_until(done), source=1)
        synthetic = self._feed(self.synthetic, self.num_samples - n_real, done - self._real_until(done), source=2)
        offset = self.real.members.rows.size
        while done < self.num_samples:
            end = min(done + self.batch_size, self.num_samples)
            n = self._real_until(end) - self._real_until(done)
            yield np.concatenate([real.take(n), offset + synthetic.take(end - done - n)])
            done = end

    def drawn_by(self) -> dict[str, Any]:
        """The share of real rows, and what the samplers of both sources draw by; batches may be of another size."""
        read: dict[str, Any] = {"real_share": float(self.real_share)}
        for source, sampler in (("real", self.real), ("synthetic", self.synthetic)):
            if sampler is not None:
                read |= {f"{source} {name}": value for name, value in sampler.drawn_by().items()}
        return read

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.real!r}, {self.synthetic!r}, batch_size={self.batch_size}, "
            f"real_share={self.real_share:g}, num_samples={self.num_samples})"
        )

    def __len__(self) -> int:
        return math.ceil(self.num_samples / self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """As `SeededSampler.state_dict`, with the seed of the synthetic rows."""
        seed = None if self.synthetic is None else self.synthetic.seed
        return super().state_dict() | {"synthetic_seed": seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As `SeededSampler.load_state_dict`."""
        super().load_state_dict(state_dict)
        self.real.seed = self.seed
        if self.synthetic is not None:
            self.synthetic.seed = check_whole(state_dict["synthetic_seed"], "seed")

    def _real_until(self, rows: int) -> int:
        """Real ones among the first `rows` rows of an epoch."""
        return math.floor(rows * self.real_share + 0.5)

    def _feed(self, sampler: EpochSampler | None, total: int, start: int, source: int) -> Feed:
        if sampler is None or total == 0:
            return Feed(iter(()))
        return Feed(sampler.draws(self.epoch, total, source).chunks(start))
