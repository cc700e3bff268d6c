"""BCL: a cosine classifier on one view, a balanced contrast with class prototypes on two more.

    L = α CE(s cos + log π, y) + β BCL(views 2 and 3, prototypes)

The prototypes are the classifier's own class vectors through a small network, so every class is in every batch; the
contrastive loss is `rebalance.losses.balanced_contrastive`.
Source: Zhu et al., Balanced Contrastive Learning for Long-Tailed Visual Recognition, CVPR 2022;
FlamieZhu/Balanced-Contrastive-Learning, main.py, models/resnext.py.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from rebalance.classifier import Classifier
from rebalance.errors import InputError
from rebalance.heads import CosineHead, ProjectionHead
from rebalance.losses import BalancedContrastiveLoss, BalancedSoftmaxLoss
from rebalance.methods.base import Batch, Method


@final
class BalancedContrastiveMethod(Method):
    """BCL.

    Args:
        classifier: With a cosine head.
        projection: Features → unit vectors.
        prototypes: Class vectors → unit vectors of the same length.
        classification: Balanced softmax of the training counts.
        contrast: BCL.
        alpha: Factor of the classification loss: 2 on CIFAR-LT, 1 on the large data sets.
        beta: Factor of the contrastive loss: 0.6, and 0.35.

    Raises:
        InputError: Another head than a cosine one, or a factor that is not positive.
    """

    n_views = 3
    views = "strong,sim,sim"

    def __init__(
        self,
        classifier: Classifier,
        projection: ProjectionHead,
        prototypes: ProjectionHead,
        classification: BalancedSoftmaxLoss,
        contrast: BalancedContrastiveLoss,
        *,
        alpha: float = 2.0,
        beta: float = 0.6,
    ) -> None:
        super().__init__()
        if not isinstance(classifier.head, CosineHead):
            raise InputError("a cosine head for BCL", f"a {classifier.head_name} head", "build the classifier with one")
        if alpha <= 0 or beta <= 0:
            raise InputError("alpha > 0 and beta > 0", f"{alpha:g} and {beta:g}", "use 2 and 0.6, or 1 and 0.35")
        self._classifier = classifier
        self.projection = projection
        self.prototypes = prototypes
        self.classification = classification
        self.contrast = contrast
        self.alpha = alpha
        self.beta = beta

    @property
    def classifier(self) -> Classifier:
        """See `Method`."""
        return self._classifier

    def forward(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        """See `Method`."""
        head, n = self._classifier.head, len(batch.targets)
        assert isinstance(head, CosineHead)
        features = self._classifier.backbone(batch.views.transpose(0, 1).flatten(0, 1))  # (3·B, D), view by view
        logits = self._classifier.logits(features[:n])
        views = self.projection(features[n:]).unflatten(0, (2, n)).transpose(0, 1)  # (B, 2, P)
        prototypes = self.prototypes(head.weight.T)  # (C, P)
        losses = {
            "balanced_softmax": self.alpha * self.classification(logits, batch.targets, reduction="none"),
            "bcl": self.beta * self.contrast(views, batch.targets, prototypes, reduction="none"),
        }
        return {name: torch.dot(values.float(), batch.weight) / n for name, values in losses.items()}
