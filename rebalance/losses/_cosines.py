"""A warning to who gives logits to a loss of cosines, once, and only where nothing is waited for."""

from __future__ import annotations

import logging
from threading import Event

import torch
from torch import Tensor

log = logging.getLogger("rebalance")
_FAR = 2.0
"""Above this size scores are no cosines, however they were rounded."""
_told = Event()


def tell_of_logits(scores: Tensor) -> None:
    """Warns, once in a process, of scores that are no cosines.

    On a CPU alone: of a GPU the values would have to be waited for. A compiled call, and one whose tensors have no
    values (vmap, fake tensors), goes unwatched.
    """
    if torch.compiler.is_compiling() or _told.is_set() or scores.device.type != "cpu" or not scores.numel():
        return
    try:
        low, high = map(float, torch.aminmax(scores.detach()))
    except RuntimeError:
        return
    if max(-low, high) > _FAR:
        _told.set()
        log.warning(
            "expected cosines in [-1, 1], of a cosine head without a scale; got scores from %.3g to %.3g; "
            "put rebalance.heads.CosineHead in the place of a linear head: the loss itself multiplies by its scale",
            low,
            high,
        )
