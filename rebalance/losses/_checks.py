"""Options, shapes and dtypes at the boundary of a loss; values of tensors are not read, so no device is waited for."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_targets(targets: Tensor, batch_size: int) -> None:
    """Refuses targets that are not (B,) int64, as gather would, but with a reason."""
    if targets.ndim == 2 and targets.is_floating_point():
        raise ValueError(
            f"expected targets of shape ({batch_size},), one class id for each row; got shares {tuple(targets.shape)}; "
            "for mixed images pass the ids of both classes and the share to rebalance.mixing.mixed_loss"
        )
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


def check_counts_fit(logits: Tensor, of_counts: Tensor, ndims: tuple[int, ...] = (2,)) -> None:
    """Refuses logits with another number of columns than the counts that a module was made from.

    Args:
        logits: (B, C); those of other dimensions are left to `check_batch`.
        of_counts: What the module made of its counts, (C,).
        ndims: Dimensions that logits may have, the last being C.

    Raises:
        ValueError: With both numbers of classes.
    """
    if logits.ndim in ndims and logits.shape[-1] != len(of_counts):
        raise ValueError(
            f"expected logits with {len(of_counts)} columns, one for each of the counts; got {tuple(logits.shape)}; "
            "pass the counts of every class, and let the head have as many outputs"
        )


def check_gamma(gamma: float) -> None:
    """Refuses an exponent of a focal modulator that is negative or not finite."""
    if not 0 <= gamma < math.inf:
        raise ValueError(f"expected gamma >= 0; got {gamma!r}; use 0 for plain cross entropy")


def check_not_negative(value: float, name: str, usual: str) -> None:
    """Refuses a number that is negative or not finite; `usual` says what it should be."""
    if not 0 <= value < math.inf:
        raise ValueError(f"expected {name} >= 0; got {value!r}; {usual}")


def check_share(value: float, name: str) -> None:
    """Refuses a number that is no share."""
    if not 0 <= value <= 1:
        raise ValueError(f"expected {name} in [0, 1]; got {value!r}; it is a share")


def check_temperature(value: float, name: str = "a temperature") -> None:
    """Refuses a divisor or factor of logits that is not positive and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"expected {name} > 0; got {value!r}; use a finite number, for example 0.1")


def check_scale(scale: float) -> None:
    """Refuses a factor from cosines to logits that is not positive and finite."""
    if not 0 < scale < math.inf:
        raise ValueError(f"expected scale > 0; got {scale!r}; 30 is usual for cosines")
