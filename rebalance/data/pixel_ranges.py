"""Whether pixels are scaled as those that a model has learnt from: [0, 1] and 0 to 255 are easily exchanged."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np

from rebalance.data.pixels import Stack
from rebalance.errors import InputError
from rebalance.user_code import user_level

_FEW = 4
"""So many images may be all dark."""
_LITTLE = 0.02
"""Share of the range below which more of them are not."""
_BYTES = 100
"""Integers beyond are no shares of anything."""


@final
@dataclass(frozen=True)
class PixelRange:
    """The numbers that a model has learnt from.

    Args:
        dtype: Of the array.
        smallest: Of all its values.
        largest: Likewise.
    """

    dtype: np.dtype[Any]
    smallest: float
    largest: float

    @classmethod
    def of(cls, values: Stack) -> Self:
        """The range of an array, which is not empty."""
        return cls(values.dtype, float(values.min()), float(values.max()))

    def check(self, values: Stack) -> None:
        """Refuse numbers that are certainly scaled otherwise, and warn of those that are likely to be.

        Raises:
            InputError: Fractions of 1 for a model of 0 to 255, or the other way round.
        """
        found = PixelRange.of(values)
        if (self._of_bytes and found._of_shares and (values % 1 != 0).any()) or (
            self._of_shares and found._beyond_shares
        ):
            raise InputError(f"{self}, as in fit", str(found), "scale the images as those of fit")
        if self._far_from(found) or (len(values) > _FEW and found._span < _LITTLE * self._span):
            warnings.warn(
                f"the images are {found}, those of fit were {self}: if they are scaled otherwise, the predictions "
                "mean nothing",
                UserWarning,
                stacklevel=user_level(),
            )

    def __str__(self) -> str:
        return f"{self.dtype} from {self.smallest:.3g} to {self.largest:.3g}"

    @property
    def _span(self) -> float:
        return self.largest - self.smallest

    @property
    def _of_bytes(self) -> bool:
        return self.dtype.kind in "iu" and self.largest > _BYTES

    @property
    def _of_shares(self) -> bool:
        return self.dtype.kind == "f" and self.smallest >= 0 and self.largest <= 1

    @property
    def _beyond_shares(self) -> bool:
        return self.dtype.kind in "iu" and self.largest > 1

    def _far_from(self, found: PixelRange) -> bool:
        """Whether some of the values are outside by more than the whole range, which of bytes is 0 to 255."""
        low, high = (0.0, 255.0) if self.dtype == np.uint8 else (self.smallest, self.largest)
        span = high - low
        return span > 0 and (found.smallest < low - span or found.largest > high + span)
