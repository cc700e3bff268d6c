"""Shapes and dtypes at the boundary of a loss; nothing here looks at values, so no device is waited for."""

from __future__ import annotations

import torch
from torch import Tensor


def check_targets(targets: Tensor, batch_size: int) -> None:
    """Refuses targets that are not (B,) int64, as gather would, but with a reason."""
    if targets.shape != (batch_size,):
        raise ValueError(
            f"expected targets of shape ({batch_size},), one class id for each row; got {tuple(targets.shape)}; "
            "pass class ids, not one-hot rows"
        )
    if targets.dtype != torch.int64:
        raise ValueError(f"expected int64 targets; got {targets.dtype}; call targets.long()")


def check_batch(logits: Tensor, targets: Tensor, **per_class: Tensor | None) -> None:
    """Refuses logits that are not (B, C), targets that are not (B,), and per-class tensors that are not (C,).

    Raises:
        ValueError: With the shape that was expected and the one that came.
    """
    if logits.ndim != 2:
        raise ValueError(
            f"expected logits of shape (B, C); got {tuple(logits.shape)}; flatten the other dimensions into B first"
        )
    check_targets(targets, logits.shape[0])
    for name, tensor in per_class.items():
        if tensor is not None and tensor.shape != (logits.shape[1],):
            raise ValueError(
                f"expected {name} of shape ({logits.shape[1]},), one value for each column of the logits; "
                f"got {tuple(tensor.shape)}; pass a value for every class"
            )
