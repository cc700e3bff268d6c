from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.errors import InputError
from rebalance.two_stage import LearnableWeightScaling, NearestClassMean, tau_norm


def weight() -> Tensor:
    rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return rows * torch.tensor([5.0, 1.0, 0.3, 0.01]).double()[:, None]


def test_tau_0_changes_nothing_and_tau_1_makes_rows_unit_length() -> None:
    assert torch.equal(tau_norm(weight(), tau=0.0)[0], weight())
    torch.testing.assert_close(tau_norm(weight())[0].norm(dim=1), torch.ones(4).double())
    torch.testing.assert_close(tau_norm(weight(), tau=0.5)[0].norm(dim=1), weight().norm(dim=1).sqrt())


def test_a_row_of_zeros_stays_one() -> None:
    rows = weight().float()
    rows[2] = 0
    for tau in (0.5, 1.0, 2.0):
        scaled, _ = tau_norm(rows, tau=tau)
        assert scaled.isfinite().all()
        assert not scaled[2].any()


def test_the_bias_is_dropped_unless_asked_for() -> None:
    bias = torch.arange(4).double()
    assert tau_norm(weight(), bias)[1] is None
    assert tau_norm(weight(), bias, use_bias=True)[1] is bias


def test_scaling_starts_as_identity_and_learns_while_the_classifier_stays() -> None:
    torch.manual_seed(0)
    classifier = nn.Linear(6, 4).requires_grad_(False)
    before = classifier.weight.clone()
    scaling = LearnableWeightScaling(4)
    features = torch.randn(5, 6)
    logits = scaling(classifier(features))
    assert torch.equal(logits, classifier(features))
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 3, 0])).backward()
    assert scaling.scales.grad is not None
    assert scaling.scales.grad.all()
    assert torch.equal(classifier.weight, before)


FEATURES = torch.tensor([[3.0, 0.0], [5.0, 2.0], [0.0, 1.0], [0.0, 3.0], [1.0, 8.0]])
TARGETS = torch.tensor([0, 0, 1, 1, 1])


@pytest.mark.parametrize("transform", ["un", "l2n", "cl2n"])
@pytest.mark.parametrize("distance", ["l2", "cos"])
def test_nearest_class_mean_equals_loops(transform: str, distance: str) -> None:
    query = torch.tensor([[1.0, 1.0], [-2.0, 0.5]])
    center = [sum(column) / 5 for column in FEATURES.T.tolist()]

    def transformed(x: list[float]) -> list[float]:
        if transform == "cl2n":
            x = [a - b for a, b in zip(x, center, strict=True)]
        length = sum(a * a for a in x) ** 0.5 if transform != "un" else 1.0
        return [a / length for a in x]

    rows = [transformed(x) for x in FEATURES.tolist()]
    means = [[sum(x[d] for x in part) / len(part) for d in range(2)] for part in (rows[:2], rows[2:])]
    expected = []
    for x in map(transformed, query.tolist()):
        if distance == "l2":
            expected.append([-sum((a - b) ** 2 for a, b in zip(x, mean, strict=True)) for mean in means])
        else:
            expected.append([sum(a * b for a, b in zip(x, mean, strict=True)) / 2 for mean in means])
    classifier = NearestClassMean(FEATURES, TARGETS, 2, transform=transform, distance=distance)
    torch.testing.assert_close(classifier(query), torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_nearest_class_mean_moves_and_saves_with_its_means() -> None:
    classifier = NearestClassMean(FEATURES, TARGETS, 2)
    other = NearestClassMean(FEATURES.flip(1), TARGETS, 2)
    other.load_state_dict(classifier.state_dict())
    assert torch.equal(other(FEATURES), classifier(FEATURES))
    assert classifier(FEATURES).argmax(1).tolist() == TARGETS.tolist()
    assert classifier.double()(FEATURES.double()).dtype == torch.float64


def test_classes_without_features_and_unknown_options_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected training features of classes 0 to 2.*got 0 of class 2"):
        NearestClassMean(FEATURES, TARGETS, 3)
    with pytest.raises(InputError, match=r"expected training features of classes 0 to 0.*got 3 of class 1"):
        NearestClassMean(FEATURES, TARGETS, 1)
    with pytest.raises(InputError, match="got 'whiten'"):
        NearestClassMean(FEATURES, TARGETS, 2, transform="whiten")
    with pytest.raises(InputError, match="got 'l1'"):
        NearestClassMean(FEATURES, TARGETS, 2, distance="l1")
