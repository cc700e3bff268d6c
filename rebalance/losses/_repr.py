"""What `print` shows of a loss: the classes it was made for, what derives from their counts, and its options."""

from __future__ import annotations

from torch import Tensor, nn


def told_options(module: nn.Module) -> str:
    """Buffers and options of a loss by name, for its `extra_repr`; of one value a class, the smallest and largest.

    Examples:
        >>> from rebalance.losses import FocalSoftmaxLoss, LDAMLoss
        >>> LDAMLoss([160, 10])
        LDAMLoss(margins: 2 classes, 0.25 to 0.5, scale=30.0, prescaled=False)
        >>> FocalSoftmaxLoss(gamma=1.0)
        FocalSoftmaxLoss(gamma=1.0, weight_in_modulator=False, detach_modulator=False)
    """
    told = [f"{name}{_in_words(buffer)}" for name, buffer in module.named_buffers()]
    for name, value in vars(module).items():
        if not name.startswith("_") and name != "training":
            told.append(f"{name}={value!r}")
    return ", ".join(told)


def _in_words(buffer: Tensor) -> str:
    if buffer.is_meta or buffer.ndim > 1:
        return f": {tuple(buffer.shape)}"
    if buffer.ndim == 0:
        return f"={buffer.item()}"
    classes = f"{len(buffer)} class{'es' if len(buffer) != 1 else ''}"
    return f": {classes}, {float(buffer.min()):.3g} to {float(buffer.max()):.3g}"
