"""What is left of a trained method: backbone, head and, for a cosine head, the scale of its logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from rebalance.backbones.base import Backbone
from rebalance.heads import build_head


@final
class Classifier(nn.Module):
    """Normalised images (B, 3, H, W) → logits (B, C).

    Args:
        backbone: Images → features.
        n_classes: C.
        head: Name of the head, features → scores (B, C), see `rebalance.heads`.
        scale: Factor from scores to logits. With 1 a cosine head gives cosines, which the losses of cosines (LDAM,
            ArcFace, CosFace) multiply by a scale themselves. For any other loss, and for probabilities, it needs for
            example 30, or its softmax is flat. None takes the length of each feature vector, as SphereFace does.
        head_options: Of the head.
        adjusted: Whether it has a `logit_bias` (C,), added at the very end, for post-hoc adjustment of any head; 0 as
            long as nobody sets it.
    """

    logit_bias: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        n_classes: int,
        *,
        head: str = "linear",
        scale: float | None = 1.0,
        head_options: Mapping[str, Any] | None = None,
        adjusted: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head_name = head
        self.head_options = dict(head_options or {})
        self.head = build_head(head, backbone.n_features, n_classes, **self.head_options)
        self.takes_maps = bool(getattr(self.head, "takes_maps", False))
        self.scale = scale
        self.register_buffer("logit_bias", torch.zeros(n_classes) if adjusted else None)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C)."""
        return self.logits(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """What the head takes: pooled features (B, D), or maps (B, D, H, W)."""
        return self.backbone.run(images) if self.takes_maps else self.backbone(images)

    def logits(self, features: Tensor) -> Tensor:
        """Logits (B, C) of what `features` gives."""
        scores = self.head(features)
        if scores.ndim == 3:  # branches
            scores = scores.sum(dim=1)
        logits = self.to_logits(scores, features)
        return logits if self.logit_bias is None else logits + self.logit_bias

    def to_logits(self, scores: Tensor, features: Tensor) -> Tensor:
        """Logits of the head's scores (B, C) for features (B, D), without `logit_bias`."""
        if self.scale is None:
            lengths: Tensor = torch.linalg.vector_norm(features.float(), dim=1, keepdim=True)
            return scores * lengths
        return scores if self.scale == 1.0 else scores * self.scale
