"""The most probable classes of each image, kept by row as batches come; those of several processes add up."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from rebalance.counts import FloatArray, IntArray
from rebalance.errors import RunError
from rebalance.transfer import send


@final
class Predictions:
    """Classes and probabilities of N images; 0 for rows that no batch held.

    Args:
        n_rows: N.
        device: Where to keep them.
        top: How many classes of each image, K.
    """

    def __init__(self, n_rows: int, device: torch.device, *, top: int = 1) -> None:
        self._device = device
        self._classes = torch.zeros((n_rows, top), dtype=torch.int64, device=device)
        self._probabilities = torch.zeros((n_rows, top), dtype=torch.float64, device=device)
        self._of_targets = torch.zeros(n_rows, dtype=torch.float64, device=device)

    def update(self, rows: IntArray, logits: Tensor, targets: Tensor | None = None) -> None:
        """Keep a batch: rows (B,), logits (B, C), and where they are known targets (B,)."""
        where = send(torch.from_numpy(rows), self._device)
        probabilities = logits.double().softmax(dim=1)
        # stable, so that of two alike the first comes first, as in `Tally`
        values, classes = probabilities.sort(dim=1, descending=True, stable=True)
        top = self._classes.shape[1]
        self._classes[where], self._probabilities[where] = classes[:, :top], values[:, :top]
        if targets is not None:
            self._of_targets[where] = probabilities.gather(1, targets[:, None])[:, 0]

    def state(self) -> list[Tensor]:
        """The tensors whose sums over processes, each with rows of its own, are the predictions of all."""
        return [self._classes, self._probabilities, self._of_targets]

    def classes(self) -> IntArray:
        """Class ids (N, K), the most probable first."""
        found: IntArray = self._classes.cpu().numpy()
        return found

    def probabilities(self) -> FloatArray:
        """Their probabilities, (N, K).

        Raises:
            RunError: They are not finite, so that no class can be read from them.
        """
        found: FloatArray = self._probabilities.cpu().numpy()
        if not bool((found >= 0).all()):
            raise RunError("the classifier's outputs are not finite, so that they say nothing; train it again")
        return found

    def of_targets(self) -> FloatArray:
        """Probabilities of the targets, (N,)."""
        found: FloatArray = self._of_targets.cpu().numpy()
        return found
