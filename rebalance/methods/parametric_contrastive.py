"""PaCo and GPaCo: a classifier whose class vectors are contrasted with, beside the views of the batch and a queue.

The loss is `rebalance.losses.paco`, which adds the class prior to the logits while training. At inference the linear
classifier is used alone, without the prior.
Source: Cui et al., Parametric Contrastive Learning, ICCV 2021; Cui et al., Generalized Parametric Contrastive Learning,
TPAMI 2023; dvlab-research/Parametric-Contrastive-Learning, PaCo/LT/moco/builder.py, GPaCo/LT/moco/builder.py. Keys are
not shuffled across ranks before batch norm, as the original does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from rebalance.bookmark import bookmark
from rebalance.classifier import Classifier
from rebalance.losses import PaCoLoss
from rebalance.methods.base import Batch, Method
from rebalance.momentum import MomentumEncoder
from rebalance.queue import FeatureQueue


@final
class ParametricContrastiveMethod(Method):
    """PaCo with a momentum, GPaCo without.

    PaCo's anchors are first views and its keys second views, through a slow copy of backbone and projection. GPaCo has
    one encoder with gradient, and all views are anchors. In both, second views are what the queue remembers, once the
    optimiser has stepped.

    Args:
        classifier: With a linear head.
        projection: Features → unit vectors.
        loss: PaCo's loss.
        queue: Of the projection's length.
        momentum: m of the key encoder; None for none, which is GPaCo.
    """

    n_views = 2
    views = "strong,sim"

    def __init__(
        self,
        classifier: Classifier,
        projection: nn.Module,
        loss: PaCoLoss,
        queue: FeatureQueue,
        *,
        momentum: float | None = 0.999,
    ) -> None:
        super().__init__()
        self._classifier = classifier
        self.projection = projection
        self.loss = loss
        self.queue = queue
        self.key_encoder = None if momentum is None else MomentumEncoder(self._encoder(), momentum=momentum)
        self._waiting: list[tuple[Tensor, Tensor]] = []

    @property
    def classifier(self) -> Classifier:
        """See `Method`."""
        return self._classifier

    def before_step(self, progress: float) -> None:
        """Forget the keys of a step that was never taken."""
        self._waiting.clear()

    def forward(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        """See `Method`."""
        anchored = batch.views if self.key_encoder is None else batch.views[:, :1]
        features = self._classifier.backbone(anchored.transpose(0, 1).flatten(0, 1))  # (V·B, D), view by view
        split = (anchored.shape[1], len(batch.targets), -1)
        logits = self._classifier.logits(features).view(split).transpose(0, 1)  # (B, V, C)
        views = self.projection(features).view(split).transpose(0, 1)
        if self.key_encoder is not None:
            views = torch.stack([views[:, 0], self.key_encoder(batch.views[:, 1])], dim=1)
        self._waiting.append((views[:, 1].detach(), batch.targets))
        losses = self._contrast(logits, views, batch.targets)
        return {"paco": torch.dot(losses.float(), batch.weight) / len(batch.targets)}

    def _contrast(self, logits: Tensor, views: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = self.loss(logits, views, targets, *self.queue(), reduction="none")
        return losses

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """See `Method`; the loss stays eager, since a queue that fills has other keys in number for every batch."""
        self._contrast = torch.compiler.disable(self._contrast)  # type: ignore[method-assign,no-untyped-call]
        super().compile(*args, **kwargs)

    def after_step(self) -> None:
        """Move the key encoder, and put the step's keys of all ranks into the queue."""
        if self.key_encoder is not None:
            self.key_encoder.update(self._encoder())
        keys, targets = zip(*self._waiting, strict=True)
        self.queue.enqueue(torch.cat(keys), torch.cat(targets))
        self._waiting.clear()

    def bookmark(self) -> Callable[[], None]:
        """Buffers but those of the queue, which stays as it is, and the keys that wait for the optimiser's step."""
        of_queue = {id(buffer) for buffer in self.queue.buffers()}
        put_back = bookmark(buffer for buffer in self.buffers() if id(buffer) not in of_queue)
        waiting = list(self._waiting)

        def put_all_back() -> None:
            put_back()
            self._waiting[:] = waiting

        return put_all_back

    def _encoder(self) -> nn.Sequential:
        """Backbone and projection as one network; not kept, so that each is in the state dict once."""
        return nn.Sequential(self._classifier.backbone, self.projection)
