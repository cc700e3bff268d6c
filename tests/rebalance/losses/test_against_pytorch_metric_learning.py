"""A second opinion: pytorch-metric-learning on the same embeddings, values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rebalance.heads import cosine_similarity
from rebalance.losses import arcface_loss, cosface_loss, sphereface_loss, supcon_pml_loss

pml = pytest.importorskip("pytorch_metric_learning.losses")
# Its SphereFace hands tensors to scipy, which NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")

B, C, D = 16, 7, 5


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "options", "ours"),
    [
        (
            "ArcFaceLoss",
            {"margin": 28.6, "scale": 64},
            lambda c, y, n: arcface_loss(c, y, margin_rad=math.radians(28.6), scale=64.0),
        ),
        (
            "ArcFaceLoss",
            {"margin": 80, "scale": 8},  # most labels beyond π - m
            lambda c, y, n: arcface_loss(c, y, margin_rad=math.radians(80), scale=8.0),
        ),
        ("CosFaceLoss", {"margin": 0.35, "scale": 64}, lambda c, y, n: cosface_loss(c, y)),
        ("CosFaceLoss", {"margin": 0.1, "scale": 4}, lambda c, y, n: cosface_loss(c, y, margin=0.1, scale=4.0)),
        ("SphereFaceLoss", {"margin": 4, "scale": 1}, sphereface_loss),
        (
            "SphereFaceLoss",
            {"margin": 3, "scale": 2},
            lambda c, y, n: sphereface_loss(c, y, n, margin=3, scale=2.0),
        ),
    ],
)
def test_angular_losses(
    name: str, options: dict[str, Any], ours: Callable[[Tensor, Tensor, Tensor], Tensor], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(B, D, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.randint(C, (B,), generator=generator)
    theirs = getattr(pml, name)(num_classes=C, embedding_size=D, **options).double()
    torch.nn.init.normal_(theirs.W, generator=generator)
    loss = ours(cosine_similarity(features, theirs.W), targets, features.norm(dim=1))
    reference = theirs(features, targets)
    torch.testing.assert_close(loss, reference, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        torch.autograd.grad(loss, (features, theirs.W)),
        torch.autograd.grad(reference, (features, theirs.W)),
        rtol=1e-8,
        atol=1e-9,
    )


@pytest.mark.parametrize("n_classes", [1, 2, 7, 16])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_supcon(n_classes: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(B, D, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.arange(B) % n_classes
    loss = supcon_pml_loss(features[:, None], targets, temperature=temperature)
    reference = pml.SupConLoss(temperature=temperature)(features, targets)
    torch.testing.assert_close(loss, reference)
    torch.testing.assert_close(torch.autograd.grad(loss, features), torch.autograd.grad(reference, features))
