"""Does a classifier name a class that an image should have nothing to do with?

A classifier that was trained on a long tail is biased towards the head, and one that corrects for it may overdo it.
So its outputs are read twice, as they are and with the logarithm of the class shares subtracted, and a class counts as
named where both readings agree on it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def usual_confusions(shares: Tensor) -> Tensor:
    """For each class the other class that its real images are given most probability of, (C,).

    Args:
        shares: Mean probabilities (C, C), a row for each class's real images.
    """
    others = shares.clone()
    others.fill_diagonal_(-1.0)
    return others.argmax(dim=1)


def third_class(logits: Tensor, label: int, usual: int, counts: Tensor) -> Tensor:
    """Probability (K,) of the class that both readings name, 0 where that is `label` or its usual confusion, or none.

    Args:
        logits: (K, C).
        label: The class that the images should be of.
        usual: Its usual confusion.
        counts: Training images of each class, (C,).
    """
    plain = logits.double().softmax(dim=1)
    adjusted = (logits.double() - counts.double().log()).softmax(dim=1)
    named, other = plain.max(dim=1), adjusted.max(dim=1)
    third = (named.indices == other.indices) & (named.indices != label) & (named.indices != usual)
    return torch.where(third, torch.minimum(named.values, other.values), 0.0).float()
