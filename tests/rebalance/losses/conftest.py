"""Every classification, angular and contrastive loss, and scores to try them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from rebalance import losses

C = 5

# Name → module for given counts, made with its defaults. Angular losses take cosines in place of logits.
ON_LOGITS: dict[str, Callable[..., nn.Module]] = {
    "ArcFaceLoss": lambda counts, **k: losses.ArcFaceLoss(**k),
    "ArcFaceLoss straight-through": lambda counts, **k: losses.ArcFaceLoss(straight_through=True, **k),
    "BalancedSoftmaxLoss": losses.BalancedSoftmaxLoss,
    "ClassBalancedFocalLoss": losses.ClassBalancedFocalLoss,
    "ClassBalancedSigmoidLoss": losses.ClassBalancedSigmoidLoss,
    "ClassBalancedSoftmaxLoss": losses.ClassBalancedSoftmaxLoss,
    "CosFaceLoss": lambda counts, **k: losses.CosFaceLoss(**k),
    "CrossEntropyLoss": lambda counts, **k: losses.CrossEntropyLoss(**k),
    "FocalSigmoidLoss": lambda counts, **k: losses.FocalSigmoidLoss(**k),
    "FocalSoftmaxLoss": lambda counts, **k: losses.FocalSoftmaxLoss(**k),
    "FocalSoftmaxLoss detached": lambda counts, **k: losses.FocalSoftmaxLoss(detach_modulator=True, **k),
    "FocalSoftmaxLoss weight inside": lambda counts, **k: losses.FocalSoftmaxLoss(weight_in_modulator=True, **k),
    "LDAMLoss": losses.LDAMLoss,
    "LDAMLoss prescaled": lambda counts, **k: losses.LDAMLoss(counts, prescaled=True, **k),
    "LabelAwareSmoothingLoss": losses.LabelAwareSmoothingLoss,
    "LogitAdjustmentLoss": losses.LogitAdjustmentLoss,
    "PriorCELoss": losses.PriorCELoss,
    "RegionRebalanceLoss": losses.RegionRebalanceLoss,
    "SigmoidCrossEntropyLoss": lambda counts, **k: losses.SigmoidCrossEntropyLoss(**k),
    "SphereFaceLoss": lambda counts, **k: WithNorms(losses.SphereFaceLoss(**k).eval()),
}
ON_VIEWS: dict[str, Callable[..., nn.Module]] = {
    "SimCLRLoss": losses.SimCLRLoss,
    "SupConLoss": losses.SupConLoss,
    "SupConLoss one": lambda **k: losses.SupConLoss(mode="one", **k),
    "SupConPMLLoss": losses.SupConPMLLoss,
}


class WithNorms(nn.Module):
    """SphereFace, every feature of length 2."""

    def __init__(self, loss: losses.SphereFaceLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, cosines: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
        norms = torch.full(targets.shape, 2.0, dtype=cosines.dtype, device=cosines.device)
        return self.loss(cosines, targets, norms, reduction=reduction)


class LossCase(NamedTuple):
    """How to make a loss, for given counts unless it is of views; with its defaults unless told."""

    name: str
    make: Callable[..., nn.Module]
    takes_weight: bool = False


LOGIT_LOSSES = [LossCase(name, make, not name.startswith("ClassBalanced")) for name, make in ON_LOGITS.items()]
WEIGHTED = [case for case in LOGIT_LOSSES if case.takes_weight]


def named(case: LossCase) -> str:
    return case.name


@pytest.fixture
def loss_names() -> list[str]:
    """Of all losses below."""
    return [*ON_LOGITS, *ON_VIEWS]


@pytest.fixture(params=LOGIT_LOSSES, ids=named)
def logit_loss(request: pytest.FixtureRequest) -> LossCase:
    """Every classification and angular loss."""
    return request.param


@pytest.fixture(params=[LossCase(name, make) for name, make in ON_VIEWS.items()], ids=named)
def view_loss(request: pytest.FixtureRequest) -> LossCase:
    """Every contrastive loss."""
    return request.param


@pytest.fixture(params=WEIGHTED, ids=named)
def weighted_loss(request: pytest.FixtureRequest) -> LossCase:
    """Every loss that takes class weights."""
    return request.param


@pytest.fixture(params=[case for case in WEIGHTED if "weight inside" not in case.name], ids=named)
def sample_weighted_loss(request: pytest.FixtureRequest) -> LossCase:
    """Every loss whose class weights are factors of its samples."""
    return request.param


@pytest.fixture(
    params=[case for case in LOGIT_LOSSES if case.name.split()[-1] not in ("straight-through", "detached")], ids=named
)
def differentiable_loss(request: pytest.FixtureRequest) -> LossCase:
    """Every classification and angular loss whose gradient is its derivative."""
    return request.param


Batch = Callable[..., tuple[Tensor, Tensor]]
Gradient = Callable[..., tuple[Tensor, Tensor]]


@pytest.fixture(scope="session")
def batch() -> Batch:
    """Scores that are cosines and logits alike, with every class among the targets."""

    def make(batch_size: int = 7, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        scores = torch.rand(batch_size, C, generator=generator, dtype=torch.float64) * 1.8 - 0.9
        return scores.to(dtype), torch.arange(batch_size) % C

    return make


@pytest.fixture(scope="session")
def unit_views() -> Batch:
    """Views (B, V, 8) of length 1, and targets."""

    def make(batch_size: int = 6, n_views: int = 2, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        views = torch.randn(batch_size, n_views, 8, generator=generator, dtype=torch.float64)
        return nn.functional.normalize(views, dim=2).to(dtype), torch.tensor([0, 1, 0, 2, 1, 0])[:batch_size]

    return make


@pytest.fixture(scope="session")
def gradient() -> Gradient:
    """Loss and its gradient by the scores, of a module."""

    def of(module: nn.Module, scores: Tensor, targets: Tensor, reduction: str = "mean") -> tuple[Tensor, Tensor]:
        scores = scores.detach().clone().requires_grad_()
        loss = module(scores, targets, reduction=reduction)
        (grad,) = torch.autograd.grad(loss, scores)
        return loss.detach(), grad

    return of
