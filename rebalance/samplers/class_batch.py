"""ClassBatchSampler: P classes × K images a batch, for losses that compare images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rebalance.counts import IntArray
from rebalance.draws import Members, random_stream, random_words
from rebalance.errors import InputError
from rebalance.permutations import cycle_keys
from rebalance.samplers.base import BatchSampler, check_whole
from rebalance.samplers.labels import find_classes


class ClassBatchSampler(BatchSampler):
    """Batches of P different classes with K images each.

    Coverage is exact on both levels. Classes come in rounds of ⌈C / P⌉ batches that hold every class; where P does not
    divide C, classes take turns to fill a round's last batch, so that over whole rounds no class has more than one
    batch more than another. The images of a class come in cycles of ⌈n_c / K⌉ batches that hold every image, and the
    K images of a batch are all different wherever n_c ≥ K.

    A batch lists one image of each class, then the next of each, …: `batch[rank::world]` keeps classes whole
    wherever the number of ranks divides P.

    Args:
        labels: Labels or a data set: whatever `find_labels` takes.
        classes_per_batch: P.
        samples_per_class: K.
        num_batches: Batches of an epoch; by default whole rounds, as few as give at least as many draws as rows.
        seed: Seed of every epoch's batches.
        classes: Class names, by default the strings among the labels, the data set's own (`classes`), or "0", "1", …

    Raises:
        InputError: More classes a batch than there are, or a number out of range.

    Examples:
        >>> sampler = ClassBatchSampler([0, 0, 0, 1, 1, 2], 3, 2)
        >>> sorted(next(iter(sampler)))[-2:], len(sampler)
        ([5, 5], 1)
    """

    def __init__(
        self,
        labels: Any,
        classes_per_batch: int,
        samples_per_class: int,
        *,
        num_batches: int | None = None,
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ) -> None:
        ids, self.classes = find_classes(labels, classes)
        self.members = Members.of(ids, len(self.classes))
        self.classes_per_batch = check_whole(classes_per_batch, "classes_per_batch", least=1)
        self.samples_per_class = check_whole(samples_per_class, "samples_per_class", least=1)
        self._present = np.flatnonzero(self.members.counts)
        if classes_per_batch > self._present.size:
            raise InputError(
                f"at most {self._present.size} classes a batch, as many as have images",
                str(classes_per_batch),
                "lower classes_per_batch",
            )
        self.smallest_batch = self.batch_size = classes_per_batch * samples_per_class
        self._round = math.ceil(self._present.size / classes_per_batch)  # batches
        rounds = math.ceil(ids.size / (self.batch_size * self._round))
        self.num_batches = check_whole(self._round * rounds if num_batches is None else num_batches, "num_batches", 1)
        self.num_samples = self.num_batches * self.batch_size
        self.seed = check_whole(seed, "seed")

    def batches(self) -> Iterator[IntArray]:
        """The batches of the epoch that are not consumed yet, as int64 arrays of P · K rows."""
        if self._consumed % self.batch_size:
            raise InputError(
                f"whole batches of {self.batch_size} consumed rows", str(self._consumed), "count every batch in full"
            )
        key = (self.seed, self.epoch)
        keys = random_words(key, 0, self.members.counts.size)
        turns = random_stream(key, 1).permutation(self._present)
        first = self._consumed // self.batch_size
        for number in range(first // self._round, math.ceil(self.num_batches / self._round)):
            begin = number * self._round
            rows = self._rows(*self._slots(number, turns, random_stream(key, 2 + number)), keys)
            rows = rows[max(first - begin, 0) : self.num_batches - begin]
            yield from rows.transpose(0, 2, 1).reshape(-1, self.batch_size)  # (batches, K · P)

    def drawn_by(self) -> dict[str, Any]:
        """P, K and a checksum of the labels."""
        return {
            "classes_per_batch": int(self.classes_per_batch),
            "samples_per_class": int(self.samples_per_class),
            "labels_crc32": self.members.checksum,
        }

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.members.rows.size} rows of {len(self.classes)} classes, "
            f"classes_per_batch={self.classes_per_batch}, samples_per_class={self.samples_per_class}, "
            f"num_batches={self.num_batches}, seed={self.seed})"
        )

    def __len__(self) -> int:
        return self.num_batches

    def _slots(self, number: int, turns: IntArray, stream: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Classes of round `number`, laid end to end, and how often each came earlier in the epoch."""
        n_classes, n_fill = turns.size, -turns.size % self.classes_per_batch
        before = np.zeros(self.members.counts.size, dtype=np.int64)
        before[turns] = number + (number * n_fill + n_classes - 1 - np.arange(n_classes)) // n_classes
        fill = turns[(number * n_fill + np.arange(n_fill)) % n_classes]
        order = stream.permutation(self._present)
        if n_fill:  # the last batch holds none of the classes that fill it
            last = np.flatnonzero(~np.isin(order, fill))[n_fill - self.classes_per_batch :]
            order = np.concatenate([np.delete(order, last), order[last], fill])
        came = before[order]
        came[n_classes:] += 1
        return order, came

    def _rows(self, classes: IntArray, came: IntArray, keys: np.ndarray[Any, np.dtype[np.uint32]]) -> IntArray:
        """K images of each slot, (batches, P, K)."""
        n_images = self.samples_per_class
        counts = self.members.counts[classes]
        cycle, step = np.divmod(came, -(-counts // n_images))
        entry = (step[:, None] * n_images + np.arange(n_images)) % counts[:, None]  # (S, K)
        names = cycle_keys(keys[classes], cycle.astype(np.uint32))
        rows = self.members.entries(classes, entry, names)
        return rows.reshape(-1, self.classes_per_batch, n_images)
