"""ResLT: branches over one feature map that answer for all, for the rarer and for the rarest classes, and their sum.

The loss is `rebalance.losses.residual`, the heads are in `rebalance.residual_head`; a prediction is the sum over the
branches.
Source: Cui et al., ResLT: Residual Learning for Long-tailed Recognition, TPAMI 2022; jiequancui/ResLT.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from rebalance.classifier import Classifier
from rebalance.errors import InputError
from rebalance.losses import ResidualLoss
from rebalance.methods.base import Batch, Method


@final
class ResidualMethod(Method):
    """ResLT.

    Args:
        classifier: With a head that gives branches, see `rebalance.residual_head`.
        loss: With a group of classes for each branch.

    Raises:
        InputError: A head without branches.
    """

    def __init__(self, classifier: Classifier, loss: ResidualLoss) -> None:
        super().__init__()
        if not classifier.takes_maps:
            raise InputError("a residual head", f"a {classifier.head_name} head", "use residual_norm or residual_conv")
        self._classifier = classifier
        self.loss = loss

    @property
    def classifier(self) -> Classifier:
        """See `Method`."""
        return self._classifier

    def forward(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        """See `Method`."""
        maps = self._classifier.features(batch.views[:, 0])
        losses = self.loss(self._classifier.head(maps), batch.targets, reduction="none")  # of logits (B, R, C)
        # A backbone may have weights behind its pooling, and DDP needs a gradient for each.
        unused = 0.0 * self._classifier.backbone.pool(maps).float().sum()
        return {"residual": torch.dot(losses.float(), batch.weight) / len(batch.targets) + unused}
