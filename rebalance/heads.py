"""Heads: features (B, D) → cosines to class vectors (B, C), or → a unit vector for contrastive terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.errors import InputError, nearest
from rebalance.residual_head import ResidualConvHead, ResidualNormHead
from rebalance.two_stage import NearestClassMean, ScaledLinearHead

SHORTEST = 1e-8
"""A feature vector shorter than this has no direction."""


def cosine_similarity(features: Tensor, weight: Tensor) -> Tensor:
    """Cosines of the angles between features and class vectors, (B, C), in float32 or wider.

    A vector shorter than 1e-8, such as the all-zero feature of dead ReLUs, has no direction: its cosines are 0 and so
    is its gradient. F.normalize, and with it the original head, multiplies that gradient by 1e12.

    Args:
        features: (B, D).
        weight: Class vectors as columns, (D, C), the layout of LDAM-DRW's NormedLinear and of pytorch-metric-learning;
            the transpose of that of nn.Linear.

    Raises:
        InputError: Features and class vectors of other shapes, such as the weight of an nn.Linear.
    """
    if features.ndim != 2 or weight.ndim != 2 or features.shape[1] != weight.shape[0]:
        raise InputError(
            "features (B, D) and class vectors (D, C)",
            f"{tuple(features.shape)} and {tuple(weight.shape)}",
            "transpose the weight of an nn.Linear",
        )
    dtype = torch.promote_types(torch.promote_types(features.dtype, weight.dtype), torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        return _normalize(features.to(dtype), dim=1) @ _normalize(weight.to(dtype), dim=0)


def _normalize(vectors: Tensor, dim: int) -> Tensor:
    lengths = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    inverse = torch.where(lengths > SHORTEST, lengths.clamp_min(SHORTEST).reciprocal(), 0.0)
    return vectors * inverse


@final
class CosineHead(nn.Module):
    """Cosines to a learnt vector for each class: no bias, no scale; the scale belongs to the loss.

    Its state dict is that of LDAM-DRW's NormedLinear, one `weight` (D, C), and so is its start: uniform in (-1, 1),
    every class vector scaled to length 1. Weight decay on it changes nothing but its effective learning rate.
    Source: kaidic/LDAM-DRW, models/resnet_cifar.py.

    Args:
        n_features: D.
        n_classes: C.
    """

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.n_classes = n_classes
        self.weight = nn.Parameter(torch.empty(n_features, n_classes))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Random class vectors of length 1."""
        self.weight.uniform_(-1.0, 1.0)
        self.weight.copy_(F.normalize(self.weight, dim=0))

    def forward(self, features: Tensor) -> Tensor:
        """Cosines (B, C) of features (B, D)."""
        return cosine_similarity(features, self.weight)

    def extra_repr(self) -> str:
        """D and C."""
        return f"{self.n_features}, {self.n_classes}"


@final
class ProjectionHead(nn.Module):
    """A small network whose output, scaled to length 1, contrastive terms compare; thrown away after training.

    With its defaults that of SupContrast and SimCLR: Linear, ReLU, Linear. BCL's and PaCo's has batch norms, GPaCo's
    two hidden layers. An output that is all zero stays zero.

    Args:
        n_features: D.
        n_outputs: Length of the projection.
        n_hidden: Width of the hidden layers, by default D.
        n_layers: Linear layers, at least 1; 1 is a linear projection.
        batch_norm: A batch norm before each ReLU.

    Raises:
        InputError: No layer, or one of no width.
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int = 128,
        *,
        n_hidden: int | None = None,
        n_layers: int = 2,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if n_layers < 1:
            raise InputError("n_layers >= 1", repr(n_layers), "use 1 for a linear projection, 2 for a hidden layer")
        width = n_features if n_hidden is None else n_hidden
        if n_outputs < 1 or width < 1:
            raise InputError(
                "a projection of at least one number, from at least one", f"{n_outputs} from {width}", "128 is usual"
            )
        layers: list[nn.Module] = []
        n_inputs = n_features
        for _ in range(n_layers - 1):
            layers.append(nn.Linear(n_inputs, width, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width))
            layers.append(nn.ReLU(inplace=True))
            n_inputs = width
        layers.append(nn.Linear(n_inputs, n_outputs))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Projections (B, n_outputs) of length 1, in float32 or wider, of features (B, D)."""
        projected = self.layers(features)
        with torch.autocast(projected.device.type, enabled=False):
            return _normalize(projected.to(torch.promote_types(projected.dtype, torch.float32)), dim=1)


HEADS: Final[dict[str, Callable[..., nn.Module]]] = {
    "linear": nn.Linear,
    "cosine": CosineHead,
    "residual_norm": ResidualNormHead,
    "residual_conv": ResidualConvHead,
    "class_means": NearestClassMean.empty,
    "scaled_linear": ScaledLinearHead,
}
"""Classification heads by name, each built from D, C and its options. One whose `takes_maps` is true works on the last
stage's maps, not on pooled features, and may give branch scores (B, R, C), whose sum are the logits."""


def build_head(name: str, n_features: int, n_classes: int, **options: Any) -> nn.Module:
    """A classification head by name: "linear" (logits), "cosine" (cosines), or another of `HEADS`.

    Raises:
        InputError: Unknown name.
    """
    if name not in HEADS:
        raise InputError("a head", repr(name), nearest(name, HEADS))
    return HEADS[name](n_features, n_classes, **options)
