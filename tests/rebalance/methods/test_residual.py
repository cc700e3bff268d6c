from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rebalance.backbones import Backbone, SmallCNN
from rebalance.classifier import Classifier
from rebalance.errors import InputError
from rebalance.losses import ResidualLoss, branch_groups
from rebalance.methods.base import Batch
from rebalance.methods.residual import ResidualMethod

COUNTS = [30, 20, 10, 4, 2]
GROUPS = [[0, 1, 2, 3, 4], [1, 2, 3, 4], [3, 4]]
START = torch.tensor(0.0)
ALPHA = 0.9


def batch(n: int = 7, weight: Tensor | None = None, targets: list[int] | None = None) -> Batch:
    stream = torch.Generator().manual_seed(0)
    views = torch.randn(n, 1, 3, 8, 8, generator=stream)
    drawn = torch.randint(5, (n,), generator=stream)
    return Batch(
        views=views,
        targets=drawn if targets is None else torch.tensor(targets),
        mix=None,
        weight=torch.ones(n) if weight is None else weight,
        synthetic=torch.zeros(n, dtype=torch.bool),
        index=torch.arange(n),
    )


def make(head: str = "residual_norm", alpha: float = ALPHA) -> ResidualMethod:
    torch.manual_seed(0)
    classifier = Classifier(SmallCNN(width=8), 5, head=head)
    groups = branch_groups(COUNTS, shares=(1.0, 0.8, 0.4))
    return ResidualMethod(classifier, ResidualLoss(groups, alpha=alpha)).eval()


def test_weights_that_take_no_part_have_a_gradient_of_zero(norm_behind_pooling: Backbone) -> None:
    """A weight without one stops training with several processes."""
    classifier = Classifier(norm_behind_pooling, 5, head="residual_norm")
    method = ResidualMethod(classifier, ResidualLoss(branch_groups(COUNTS)))
    method(batch(), START)["residual"].backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) != (".norm." in f".{name}"), name


def log_p(logits: list[float], target: int) -> float:
    return logits[target] - math.log(sum(map(math.exp, logits)))


@pytest.mark.parametrize("head", ["residual_norm", "residual_conv"])
def test_the_loss_is_that_of_the_branches_and_of_their_sum(head: str) -> None:
    method, given = make(head), batch()
    with torch.no_grad():
        loss = float(method(given, START)["residual"])
        branches = method.classifier.head(method.classifier.backbone.run(given.views[:, 0])).double()
    total, n_answers, fused = 0.0, 0, 0.0
    for row, target in zip(branches, given.targets.tolist(), strict=True):
        for r, group in enumerate(GROUPS):
            if target in group:
                total -= math.log(math.exp(log_p(row[r].tolist(), target)) + 1e-7)
                n_answers += 1
        fused -= log_p(row.sum(0).tolist(), target)
    assert loss == pytest.approx(ALPHA * total / n_answers + (1 - ALPHA) * fused / 7, rel=1e-5)


@pytest.mark.parametrize("head", ["residual_norm", "residual_conv"])
def test_a_prediction_is_the_sum_over_the_branches(head: str) -> None:
    method, images = make(head), batch().views[:, 0]
    branches = method.classifier.head(method.classifier.backbone.run(images))
    assert branches.shape == (7, 3, 5)
    torch.testing.assert_close(method.predict(images), branches.sum(1))


def test_the_tail_branch_hears_of_tail_classes_alone() -> None:
    method = make(alpha=1.0)
    method(batch(targets=[0, 1, 2, 0, 1, 2, 0]), START)["residual"].backward()
    gradients = [norm.weight.grad for norm in method.classifier.head.norms]
    assert [bool(gradient.any()) for gradient in gradients] == [True, True, False]  # a gradient of zeros, for DDP
    method(batch(targets=[0, 1, 2, 3, 1, 2, 0]), START)["residual"].backward()
    assert bool(gradients[2].any())


def test_the_weight_is_the_images() -> None:
    method = make()
    weight = torch.tensor([1.0, 0.3, 0.0, 2.0, 0.3, 1.0, 0.5])
    each = [method(batch(weight=torch.eye(7)[i]), START)["residual"] for i in range(7)]
    torch.testing.assert_close(method(batch(weight=weight), START)["residual"], (torch.stack(each) * weight).sum())


def test_a_head_without_branches_is_refused() -> None:
    with pytest.raises(InputError, match="a residual head; got a linear head"):
        make("linear")
