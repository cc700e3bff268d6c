"""From the CPU to the training device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on the device; the caller goes on at once, except where the device is the CPU itself.

    To a GPU it goes through page-locked memory: from other memory the driver may wait for all work before the copy.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type != "cpu")
