from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from rebalance.data.pixel_ranges import PixelRange
from rebalance.errors import InputError

BYTES = np.random.default_rng(0).integers(0, 256, (10, 4, 4)).astype(np.uint8)
SHARES = BYTES / 255


@pytest.mark.parametrize(
    ("of_fit", "later"),
    [
        (BYTES, SHARES),
        (BYTES, SHARES.astype(np.float32)[:1]),
        (BYTES.astype(np.int64), SHARES),
        (SHARES, BYTES),
        (SHARES.astype(np.float32), BYTES.astype(np.int64)),
    ],
)
def test_shares_and_bytes_are_never_exchanged(of_fit: Any, later: Any) -> None:
    with pytest.raises(InputError, match=r"as in fit; got .* from 0"):
        PixelRange.of(of_fit).check(later)


@pytest.mark.parametrize(
    ("of_fit", "later"),
    [
        (SHARES, SHARES * 255),
        (SHARES * 255, SHARES),
        (SHARES - 0.5, BYTES),
        (BYTES, BYTES.astype(np.int64) * 257),
        (BYTES, BYTES // 100),
        (BYTES, np.zeros_like(BYTES)),
    ],
)
def test_what_is_likely_to_be_scaled_otherwise_is_told(of_fit: Any, later: Any) -> None:
    with pytest.warns(UserWarning, match="if they are scaled otherwise, the predictions mean nothing"):
        PixelRange.of(of_fit).check(later)


@pytest.mark.parametrize(
    ("of_fit", "later"),
    [
        (BYTES, BYTES[:1] // 100),
        (BYTES // 4, BYTES),
        (BYTES, BYTES.astype(np.float32)),
        (BYTES, np.zeros((1, 4, 4))),
        (BYTES // 255, (BYTES // 255).astype(float)),
        (SHARES, SHARES * 1.5),
        (SHARES, (BYTES > 128)),
        (SHARES, (BYTES > 128).astype(np.uint8)),
        (np.zeros((5, 4, 4)), SHARES),
    ],
)
def test_what_may_be_scaled_alike_is_taken_in_silence(of_fit: Any, later: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PixelRange.of(of_fit).check(later)
