"""Most recipes: backbone + head + a weighted list of losses, with class weights that have a rule and a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from rebalance.classifier import Classifier
from rebalance.errors import InputError
from rebalance.methods.base import Batch, Method
from rebalance.methods.weighting import ClassWeighting


@dataclass(frozen=True)
class LossTerm:
    """One loss of a composition.

    Args:
        name: Under which it is logged.
        loss: Module (scores, targets, reduction="none") → (B,).
        share: Its factor in the sum.
        takes: "logits", or "cosines" for a loss that multiplies by a scale of its own.
    """

    name: str
    loss: nn.Module
    share: float = 1.0
    takes: Literal["logits", "cosines"] = "logits"


@final
class ComposedMethod(Method):
    """A classifier trained with a sum of losses.

    Args:
        classifier: Backbone, head, and the scale of its logits.
        terms: The losses.
        weighting: Class weights, which every term is multiplied by.
    """

    def __init__(self, classifier: Classifier, terms: Sequence[LossTerm], weighting: ClassWeighting) -> None:
        super().__init__()
        if not terms:
            raise InputError("at least one loss", "none", "name a loss, such as ce")
        self._classifier = classifier
        self.weighting = weighting
        self.losses = nn.ModuleDict({term.name: term.loss for term in terms})
        self.terms = tuple(terms)

    @property
    def classifier(self) -> Classifier:
        """See `Method`."""
        return self._classifier

    def forward(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        """See `Method`."""
        scores = self._classifier.head(self._classifier.backbone(batch.views[:, 0]))
        weight = batch.weight * self.weighting(batch.targets, progress)
        return {term.name: term.share * self._mean(term, scores, batch.targets, weight) for term in self.terms}

    def _mean(self, term: LossTerm, scores: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """Sum of the weighted losses over the batch, divided by its size."""
        if term.takes == "logits":
            scores = scores * self._classifier.scale
        losses: Tensor = term.loss(scores, targets, reduction="none")
        return torch.dot(losses.float(), weight) / len(targets)
