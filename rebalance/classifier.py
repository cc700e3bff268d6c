"""What is left of a trained method: backbone, head and, for a cosine head, the scale of its logits."""

from __future__ import annotations

from typing import final

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
        scale: Factor from scores to logits: 1 for a linear head; a cosine head needs more, or its softmax is flat. None
            takes the length of each feature vector, as SphereFace does.
    """

    def __init__(self, backbone: Backbone, n_classes: int, *, head: str = "linear", scale: float | None = 1.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = build_head(head, backbone.n_features, n_classes)
        self.head_name = head
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C)."""
        return self.logits(self.backbone(images))

    def logits(self, features: Tensor) -> Tensor:
        """Logits (B, C) of features (B, D)."""
        return self.to_logits(self.head(features), features)

    def to_logits(self, scores: Tensor, features: Tensor) -> Tensor:
        """Logits of the head's scores (B, C) for features (B, D)."""
        if self.scale is None:
            lengths: Tensor = torch.linalg.vector_norm(features.float(), dim=1, keepdim=True)
            return scores * lengths
        return scores if self.scale == 1.0 else scores * self.scale
