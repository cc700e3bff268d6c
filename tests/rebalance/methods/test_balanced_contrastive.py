from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rebalance.backbones import SmallCNN
from rebalance.classifier import Classifier
from rebalance.errors import InputError
from rebalance.heads import ProjectionHead
from rebalance.losses import BalancedContrastiveLoss, BalancedSoftmaxLoss
from rebalance.methods.balanced_contrastive import BalancedContrastiveMethod
from rebalance.methods.base import Batch

COUNTS = [30, 10, 2]
START = torch.tensor(0.0)
TEMPERATURE = 0.1


def batch(n: int = 5, weight: Tensor | None = None) -> Batch:
    stream = torch.Generator().manual_seed(0)
    return Batch(
        views=torch.randn(n, 3, 3, 8, 8, generator=stream),
        targets=torch.randint(3, (n,), generator=stream),
        mix=None,
        weight=torch.ones(n) if weight is None else weight,
        synthetic=torch.zeros(n, dtype=torch.bool),
        index=torch.arange(n),
    )


def make(alpha: float = 2.0, beta: float = 0.6, head: str = "cosine") -> BalancedContrastiveMethod:
    torch.manual_seed(0)
    return BalancedContrastiveMethod(
        Classifier(SmallCNN(width=8), 3, head=head, scale=30.0),
        ProjectionHead(32, 6, batch_norm=True),
        ProjectionHead(32, 6, batch_norm=True),
        BalancedSoftmaxLoss(COUNTS),
        BalancedContrastiveLoss(temperature=TEMPERATURE),
        alpha=alpha,
        beta=beta,
    ).eval()  # batch norm in evaluation mode, so that passes can be repeated


def contrast(rows: Tensor, labels: list[int], n_anchors: int) -> float:
    """BCL of the anchors, which are the first rows, as plain loops."""
    total = 0.0
    for i in range(n_anchors):
        others = [j for j in range(len(rows)) if j != i]
        similar = {j: float(rows[i] @ rows[j]) / TEMPERATURE for j in others}
        denominator = 0.0
        for c in set(labels):
            members = [j for j in others if labels[j] == c]
            denominator += sum(math.exp(similar[j]) for j in members) / len(members)
        positives = [j for j in others if labels[j] == labels[i]]
        total -= sum(similar[j] - math.log(denominator) for j in positives) / len(positives)
    return total / n_anchors


def test_the_first_view_is_classified_and_the_others_contrasted_with_class_prototypes() -> None:
    method, given = make(), batch()
    with torch.no_grad():
        terms = method(given, START)
        features = [method.classifier.backbone(given.views[:, v]) for v in range(3)]
        weight = method.classifier.head.weight
        cosines = F.normalize(features[0], dim=1) @ F.normalize(weight, dim=0)
        rows = [method.projection(features[1]), method.projection(features[2]), method.prototypes(weight.T)]
    logits = 30 * cosines.double() + torch.tensor(COUNTS).double().log()
    torch.testing.assert_close(terms["balanced_softmax"].double(), 2 * F.cross_entropy(logits, given.targets))
    labels = [*given.targets.tolist(), *given.targets.tolist(), 0, 1, 2]
    expected = 0.6 * contrast(torch.cat(rows).double(), labels, 10)
    assert float(terms["bcl"]) == pytest.approx(expected, rel=1e-5)


def test_the_contrast_trains_the_class_vectors_too() -> None:
    method = make()
    method(batch(), START)["bcl"].backward()
    gradient = method.classifier.head.weight.grad
    assert gradient is not None
    assert bool(gradient.any(dim=0).all())  # every class's, whether it is in the batch or not


def test_factors_multiply_their_terms() -> None:
    one, other = make()(batch(), START), make(alpha=1.0, beta=0.3)(batch(), START)
    torch.testing.assert_close(one["balanced_softmax"], 2 * other["balanced_softmax"])
    torch.testing.assert_close(one["bcl"], 2 * other["bcl"])


def test_the_weight_is_the_anchors() -> None:
    method = make()
    weight = torch.tensor([1.0, 0.3, 0.0, 2.0, 0.3])
    each = [method(batch(weight=torch.eye(5)[i]), START) for i in range(5)]
    together = method(batch(weight=weight), START)
    for name, value in together.items():
        torch.testing.assert_close(value, (torch.stack([terms[name] for terms in each]) * weight).sum())


def test_only_the_classifier_is_left_and_it_knows_no_prior() -> None:
    method, images = make(), batch().views[:, 0]
    cosines = method.classifier.head(method.classifier.backbone(images))
    torch.testing.assert_close(method.predict(images), 30 * cosines)
    assert not any("proto" in name or "projection" in name for name in method.classifier.state_dict())


def test_losses_are_float32_under_autocast() -> None:
    full = make()(batch(), START)
    with torch.autocast("cpu", torch.bfloat16):
        half = make()(batch(), START)
    for name, value in half.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full[name], rtol=0.05, atol=0.1)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="a cosine head for BCL; got a linear head"):
        make(head="linear")
    with pytest.raises(InputError, match="alpha > 0 and beta > 0; got 2 and 0"):
        make(beta=0.0)
