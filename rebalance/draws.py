"""Class first, member second: the arithmetic that every sampler shares. NumPy only.

    share_c      share of class c among the draws                     Σ share = 1
    quota_c      ⌊draws · share_c⌋ or one more, Σ quota = draws       systematic sampling, E[quota_c] = draws · share_c
    arrangement  uniformly random order of quota_c copies of each c   chunk by chunk, multivariate hypergeometric
    member       draw j of class c is entry j mod n_c of a random permutation of its members, one for each ⌊j / n_c⌋

So no member of a class comes a second time before all came once, and quota_c = n_c is a shuffle of the whole table.
Beside the members nothing is held but one chunk, and a chunk can be made without those before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rebalance.counts import FloatArray, IntArray, class_counts
from rebalance.errors import InputError
from rebalance.permutations import SMALL, UInt32Array, cycle_keys, permuted

MAX_DRAWS = 999_999_999  # bound of NumPy's multivariate hypergeometric


@dataclass(frozen=True)
class Members:
    """The rows of each class: `rows[starts[c] : starts[c] + counts[c]]`, ascending."""

    rows: UInt32Array  # (N,)
    starts: IntArray  # (C,)
    counts: IntArray  # (C,)

    @cached_property
    def checksum(self) -> int:
        """CRC-32 of the class of every row."""
        return zlib.crc32(self.counts.data, zlib.crc32(self.rows.data))

    @classmethod
    def of(cls, ids: npt.NDArray[np.integer], n_classes: int) -> Members:
        """Members of each class out of class ids (N,): a counting sort in blocks, without a second full array."""
        block = chunk_size(n_classes)
        blocks = range(0, ids.size, block)
        counts = np.zeros(n_classes, dtype=np.int64)
        for begin in blocks:
            counts += class_counts(ids[begin : begin + block], n_classes)
        starts = np.cumsum(counts) - counts
        rows = np.empty(ids.size, dtype=np.uint32)
        cursor = starts.copy()
        for begin in blocks:
            part = ids[begin : begin + block]
            here = np.bincount(part, minlength=n_classes)
            place = np.arange(part.size) + np.repeat(cursor - _edges(here), here)
            rows[place] = begin + grouped(part, n_classes)
            cursor += here
        return cls(rows, starts, counts)

    def drawn(self, classes: IntArray, first: IntArray, here: IntArray, keys: UInt32Array) -> UInt32Array:
        """Rows of draws first[i], first[i] + 1, … (here[i] of them) of class classes[i], one after the other.

        Args:
            classes: Class ids, those with up to `SMALL` members before the others.
            first: Number of the first draw of each.
            here: How many draws of each.
            keys: The word that names the permutations of each.
        """
        counts = self.counts[classes]
        cycle = first // counts
        n_cycles = (first + here - 1) // counts - cycle + 1
        # One segment a class and cycle: its position in the cycle, its length.
        segment = np.repeat(np.arange(classes.size), n_cycles)
        step = np.arange(segment.size) - np.repeat(_edges(n_cycles), n_cycles)
        cycle = cycle[segment] + step
        size = counts[segment]
        position = np.maximum(first[segment] - cycle * size, 0)
        length = np.minimum(size, (first + here)[segment] - cycle * size) - position
        sizes = size.astype(np.uint32)
        entry = np.arange(here.sum(), dtype=np.uint32) + np.repeat(
            (position - _edges(length)).astype(np.uint32), length
        )
        rank = permuted(entry, sizes, cycle_keys(keys[segment], cycle.astype(np.uint32)), length)
        return self.rows[rank + np.repeat(self.starts[classes], here)]

    def entries(self, classes: IntArray, entry: IntArray, names: UInt32Array) -> IntArray:
        """Rows (S, K) at the entries `entry` (S, K) of permutations `names` (S,) of the members of `classes` (S,)."""
        sizes = self.counts[classes].astype(np.uint32)
        order = np.argsort(sizes > SMALL, kind="stable")
        lengths = np.full(order.size, entry.shape[1])
        rank = permuted(entry[order].ravel().astype(np.uint32), sizes[order], names[order], lengths)
        rows = np.empty(entry.shape, dtype=np.int64)
        rows[order] = self.rows[rank.reshape(entry.shape) + self.starts[classes[order]][:, None]]
        return rows


@dataclass(frozen=True)
class Draws:
    """The draws of one epoch.

    Args:
        members: The rows of each class.
        quota: How many draws of each class, shape (C,).
        key: What everything random depends on.
    """

    members: Members
    quota: IntArray
    key: tuple[int, ...]

    def chunks(self, start: int = 0) -> Iterator[IntArray]:
        """Rows from draw `start` on, in arrays of up to `chunk_size(C)` entries."""
        _keep_freed_pages()
        keys = random_words(self.key, 1, self.quota.size)
        left = self.quota.copy()
        total = int(left.sum())
        size = chunk_size(left.size)
        for number, begin in enumerate(range(0, total, size), 2):
            end = min(begin + size, total)
            stream = random_stream(self.key, number)
            here = stream.multivariate_hypergeometric(left, end - begin, method="marginals")
            if end > start:
                yield self._chunk(stream, here, self.quota - left, keys)[max(start - begin, 0) :]
            left -= here

    def _chunk(self, stream: np.random.Generator, here: IntArray, first: IntArray, keys: UInt32Array) -> IntArray:
        classes = np.flatnonzero(here)
        classes = classes[np.argsort(self.members.counts[classes] > SMALL, kind="stable")]
        here = here[classes]
        rows = np.empty(here.sum(), dtype=np.uint32)
        rows[arrangement(stream, here)] = self.members.drawn(classes, first[classes], here, keys[classes])
        return rows.astype(np.int64)


def mixed_shares(counts: npt.ArrayLike, rule_shares: npt.ArrayLike, factor: float) -> FloatArray:
    """(1 - f) · n_c / n + f · rule_c: a schedule's factor f between drawing plainly and by the rule, shape (C,)."""
    n = np.asarray(counts, dtype=np.float64)
    return np.asarray((1.0 - factor) * n / n.sum() + factor * np.asarray(rule_shares, dtype=np.float64))


def quotas(expected: FloatArray, offset: float) -> IntArray:
    """Whole draws of each class: x_c rounded down or up, the sum kept, and x_c on average over `offset`.

    Args:
        expected: x, draws of each class with a whole sum, shape (C,).
        offset: The one random number of systematic sampling, in [0, 1).
    """
    x = _whole_where_near(expected)
    whole = np.floor(x)
    edges = np.floor(_whole_where_near(np.cumsum(x - whole)) + min(offset, 1.0 - 1e-6))
    return np.asarray(whole + np.diff(edges, prepend=0.0), dtype=np.int64)


def arrangement(stream: np.random.Generator, here: IntArray) -> IntArray:
    """A uniformly random order of here[c] copies of each c: the ascending places of class 0, then of class 1 …."""
    total, bits = int(here.sum()), max(here.size - 1, 1).bit_length()
    word: Any = np.uint32 if bits <= 11 else np.uint64  # at least 21 random bits
    order = stream.bit_generator.random_raw(-(-total * word().itemsize // 8)).view(word)[:total]
    order <<= word(bits)
    flip = word(stream.integers(1 << bits))  # so that neither of two classes comes first where random bits are equal
    order |= np.repeat(np.arange(here.size, dtype=word) ^ flip, here)
    order.sort()
    order &= word((1 << bits) - 1)
    order ^= flip
    return grouped(order, here.size)


def grouped(ids: npt.NDArray[np.integer], n_classes: int) -> IntArray:
    """The ascending positions of class 0, then of class 1 …: a stable argsort, several times as fast."""
    bits = max(ids.size - 1, 1).bit_length()
    word: Any = np.uint32 if bits + max(n_classes - 1, 1).bit_length() <= 32 else np.uint64
    tagged = (ids.astype(word) << word(bits)) | np.arange(ids.size, dtype=word)
    tagged.sort()
    return np.asarray(tagged & word((1 << bits) - 1), dtype=np.int64)


def chunk_size(n_classes: int) -> int:
    """Draws made at a time: enough that the work on classes is small beside the work on draws."""
    return 1 << min(max((4 * n_classes).bit_length(), 17), 18)


def random_words(key: tuple[int, ...], domain: int, n: int) -> UInt32Array:
    """`n` words named by `key` and `domain`."""
    return random_stream(key, domain).integers(0, 1 << 32, n, dtype=np.uint32)


def random_stream(key: tuple[int, ...], domain: int) -> np.random.Generator:
    """The random stream named by `key` and `domain`."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key, spawn_key=(domain,))))


def check_draws(n: int, name: str) -> int:
    """`n` as a number of draws.

    Raises:
        InputError: Not a whole number from 1 to `MAX_DRAWS`.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= MAX_DRAWS:
        raise InputError(f"{name} as a whole number from 1 to {MAX_DRAWS}", repr(n), "pass how many draws an epoch has")
    return int(n)


def _edges(lengths: IntArray) -> IntArray:
    """Where each of several runs begins."""
    return np.asarray(np.cumsum(lengths) - lengths)


def _whole_where_near(x: FloatArray) -> FloatArray:
    """`x` without what rounding left of whole numbers."""
    near = np.rint(x)
    return np.where(np.abs(x - near) <= 1e-9 * np.maximum(near, 1.0), near, x)


def _keep_freed_pages() -> None:
    """Makes glibc keep the pages of one chunk's arrays for the next, which saves a third of an epoch's time."""
    np.empty(1 << 24, dtype=np.uint8)
