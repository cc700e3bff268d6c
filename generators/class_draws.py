"""Training images of a generator: the class first, in proportion to a power of its count, then a member."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor


@final
class ClassDraws:
    """Rows with their class drawn in proportion to n_c^exponent, then a member alike.

    Args:
        labels: Class ids (N,).
        exponent: 1 draws classes as they are, 0 alike; a class without an image is never drawn.
        n_classes: C.
    """

    def __init__(self, labels: Tensor, exponent: float, n_classes: int) -> None:
        labels = labels.cpu()
        self.n_classes = n_classes
        self.counts = torch.bincount(labels, minlength=n_classes)
        self.order = torch.argsort(labels, stable=True)
        self.starts = torch.cumsum(self.counts, 0) - self.counts
        self.share = torch.where(self.counts > 0, self.counts.double().pow(exponent), 0.0)

    def __call__(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows (n,) and their class ids (n,), by a CPU generator."""
        classes = self.classes(n, generator)
        within = (torch.rand(n, generator=generator, dtype=torch.float64) * self.counts[classes]).long()
        return self.order[self.starts[classes] + within], classes

    def classes(self, n: int, generator: torch.Generator) -> Tensor:
        """Class ids alone (n,), of the same kind of draw."""
        return torch.multinomial(self.share, n, replacement=True, generator=generator)
