"""Float32 or wider arithmetic inside a loss, whatever autocast region or half-precision network it is called from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_precision(values: Tensor) -> Iterator[Tensor]:
    """Autocast off, and `values` as max(float32, their dtype)."""
    with torch.autocast(values.device.type, enabled=False):
        yield values.to(torch.promote_types(values.dtype, torch.float32))
