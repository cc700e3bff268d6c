"""Random permutations of range(n) by name: any entry on its own, nothing stored, NumPy arrays elementwise.

small n   swap-or-not: twelve rounds of "pair x with K - x, swap the two or not"; every order is equally likely.
          Hoang, Morris, Rogaway, An Enciphering Scheme Based on a Card Shuffle, CRYPTO 2012.
large n   a Feistel network on a grid of rows × 2^bits cells that just holds n, a fifth of the time; an entry that
          lands outside range(n) goes through again. Black, Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInt16Array = npt.NDArray[np.uint16]
UInt32Array = npt.NDArray[np.uint32]
SMALL = 64
MAX_SIZE = 2**31 - 1
_GOLDEN = np.uint32(0x9E3779B9)
# Odd offsets that tell the rounds apart; eight rounds leave pairs of entries within 3 % of uniform at n = 65.
_COLUMN_OFFSETS = np.array([0x79B9, 0xB629, 0xF297, 0x2F07], dtype=np.uint16)
_ROW_OFFSETS = np.array([0x1F35, 0x7787, 0xCFD9, 0x282B], dtype=np.uint16)


def mixed(x: UInt32Array) -> UInt32Array:
    """A bijective hash of words, every bit of which depends on every bit (the constants are C. Wellons's lowbias32)."""
    x = x ^ (x >> np.uint32(16))
    x *= np.uint32(0x21F0AAAD)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x735A2D97)
    x ^= x >> np.uint32(15)
    return x


def cycle_keys(keys: UInt32Array, cycles: UInt32Array) -> UInt32Array:
    """The name of permutation number `cycles` of the family `keys`, elementwise."""
    return mixed(keys + cycles * _GOLDEN)


def permuted(
    position: UInt32Array, sizes: UInt32Array, keys: UInt32Array, lengths: npt.NDArray[np.int64]
) -> UInt32Array:
    """Entries of several permutations, laid end to end.

    Args:
        position: The entries asked for: lengths[0] of the first permutation, then lengths[1] of the second, …
        sizes: n of each permutation, 1 to `MAX_SIZE`; those up to `SMALL` first.
        keys: The name of each permutation.
        lengths: How many entries of each are asked for.
    """
    n_small = int(np.searchsorted(sizes > SMALL, True))
    edge = int(lengths[:n_small].sum())
    out = np.empty_like(position)
    if edge:
        few = lengths[:n_small]
        out[:edge] = _swap_or_not(position[:edge], np.repeat(sizes[:n_small], few), np.repeat(keys[:n_small], few))
    if edge < out.size:
        out[edge:] = _feistel(position[edge:], sizes[n_small:], keys[n_small:], lengths[n_small:])
    return out


def _swap_or_not(x: UInt32Array, size: UInt32Array, key: UInt32Array) -> UInt32Array:
    for _ in range(12):
        key = key * np.uint32(0x915F77F5) + _GOLDEN
        word = mixed(key)
        other = ((word >> np.uint32(16)) * size >> np.uint32(16)) - x
        other = np.minimum(other, other + size)  # unsigned: modulo size
        swap = mixed(np.maximum(x, other) ^ word) >> np.uint32(31)
        x = x ^ ((x ^ other) & (np.uint32(0) - swap))
    return x


def _feistel(x: UInt32Array, sizes: UInt32Array, keys: UInt32Array, lengths: npt.NDArray[np.int64]) -> UInt32Array:
    log = (np.frexp(sizes - 0.5)[1] + 1).astype(np.uint32) >> np.uint32(1)
    n_rows = ((sizes - np.uint32(1)) >> log) + np.uint32(1)
    grid = (  # of each permutation, then of each entry
        log.astype(np.uint16),
        n_rows.astype(np.uint16),
        ((1 << np.frexp(n_rows - 0.5)[1]) - 1).astype(np.uint16),
        keys.astype(np.uint16),
        (keys >> np.uint32(16)).astype(np.uint16),
    )
    cells = tuple(np.repeat(part, lengths) for part in grid)
    size = np.repeat(sizes, lengths)
    out = _grid_rounds(x, *cells)
    outside = np.flatnonzero(out >= size)
    while outside.size:
        out[outside] = _grid_rounds(out[outside], *(part[outside] for part in cells))
        outside = outside[out[outside] >= size[outside]]
    return out


def _grid_rounds(
    x: UInt32Array, log: UInt16Array, n_rows: UInt16Array, row_mask: UInt16Array, key0: UInt16Array, key1: UInt16Array
) -> UInt32Array:
    column_mask = (np.uint16(1) << log) - np.uint16(1)
    column = x.astype(np.uint16) & column_mask
    row = (x >> log).astype(np.uint16)
    for column_offset, row_offset in zip(_COLUMN_OFFSETS, _ROW_OFFSETS, strict=True):
        column ^= _hash16(row, key0 + column_offset) & column_mask
        step = _hash16(column, key1 + row_offset) & row_mask
        row += np.minimum(step, step - n_rows)  # unsigned: modulo n_rows
        row = np.minimum(row, row - n_rows)
    return (row.astype(np.uint32) << log) | column


def _hash16(x: UInt16Array, key: UInt16Array) -> UInt16Array:
    h = x + key
    h *= np.uint16(0x9E3B)
    h ^= h >> np.uint16(7)
    h *= np.uint16(0x85EB)
    h ^= h >> np.uint16(8)
    return h
