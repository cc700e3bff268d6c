"""A composition with a teacher: what the teacher sees, what of it moves, what it adds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generators.rare_features import RareFeatureGenerator
from rebalance.backbones import SmallCNN
from rebalance.classifier import Classifier
from rebalance.errors import InputError
from rebalance.heads import ProjectionHead
from rebalance.losses import BalancedSoftmaxLoss, CosFaceLoss, CrossEntropyLoss, SupConLoss, distillation_loss
from rebalance.methods.base import Batch
from rebalance.methods.batch_mix import BatchMix
from rebalance.methods.composed import ComposedMethod, Generation, LossTerm
from rebalance.methods.distilled import DistilledMethod
from rebalance.methods.weighting import ClassWeighting

COUNTS = [30, 10, 2]
START = torch.tensor(0.0)
CE = LossTerm("ce", CrossEntropyLoss())
SUPCON = LossTerm("supcon", SupConLoss(temperature=0.1, base_temperature=0.1), 0.6, "views")


def batch(n_views: int = 1, weight: Tensor | None = None) -> Batch:
    views = torch.randn(6, n_views, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    targets, synthetic = torch.tensor([0, 0, 1, 1, 2, 0]), torch.zeros(6, dtype=torch.bool)
    return Batch(views, targets, None, torch.ones(6) if weight is None else weight, synthetic, torch.arange(6))


def network(seed: int, head: str = "linear", scale: float = 1.0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(SmallCNN(width=8), 3, head=head, scale=scale)


def composition(*terms: LossTerm, head: str = "linear", scale: float = 1.0, **parts: Any) -> ComposedMethod:
    return ComposedMethod(network(0, head, scale), terms or (CE,), ClassWeighting(COUNTS), **parts)


def generation() -> Generation:
    torch.manual_seed(1)
    return Generation(RareFeatureGenerator(COUNTS, 16, n_centers=2), 2, 0.5, {"cesc": 0.1, "mv": 0.01})


def test_the_losses_are_shared_between_labels_and_teacher() -> None:
    balanced = LossTerm("balanced_softmax", BalancedSoftmaxLoss(COUNTS))
    objective, teacher, given = composition(balanced).eval(), network(7).eval(), batch()
    found = DistilledMethod(objective, teacher, share=0.3, temperature=2.0).eval()(given, START)
    images = given.views[:, 0]
    expected = distillation_loss(objective.classifier(images), teacher(images), temperature=2.0)
    assert list(found) == ["balanced_softmax", "distillation"]
    torch.testing.assert_close(found["balanced_softmax"], 0.7 * objective(given, START)["balanced_softmax"])
    torch.testing.assert_close(found["distillation"], 0.3 * expected)


PARTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one view": (1, {}),
    "views that are contrasted": (2, {"terms": (CE, SUPCON), "projection": ProjectionHead(32, 4)}),
    "mixed images": (1, {"mix": BatchMix("mixup", COUNTS)}),
    "a mixed view beside two that are contrasted": (
        3,
        {"terms": (CE, SUPCON), "projection": ProjectionHead(32, 4), "mix": BatchMix("cutmix", COUNTS)},
    ),
    "generated features": (1, {"generation": generation()}),
    "cosines": (1, {"terms": (LossTerm("cosface", CosFaceLoss(), takes="cosines"),), "head": "cosine", "scale": 30.0}),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_teacher_with_the_same_weights_has_nothing_to_add(name: str) -> None:
    """So it sees the very pixels that the student sees."""
    n_views, given = PARTS[name]
    terms, parts = given.get("terms", ()), {key: part for key, part in given.items() if key != "terms"}
    objective = composition(*terms, **parts).eval()
    method = DistilledMethod(objective, copy.deepcopy(objective.classifier)).eval()
    method.before_step(0.9)
    assert method.n_views == n_views
    found = method(batch(n_views), START)["distillation"]
    torch.testing.assert_close(found.detach(), torch.zeros(()), atol=1e-5, rtol=0)
    other = DistilledMethod(objective, network(7)).eval()(batch(n_views), START)["distillation"]
    assert other > 1e-3


def test_a_row_counts_by_its_weight() -> None:
    weight = torch.tensor([1.0, 0.3, 0.0, 2.0, 0.3, 1.0])
    method = DistilledMethod(composition(), network(7)).eval()
    images = batch().views[:, 0]
    values = distillation_loss(method.classifier(images), method.teacher(images), reduction="none")
    found = method(batch(weight=weight), START)["distillation"]
    torch.testing.assert_close(found, 0.5 * (weight * values).mean())


def test_a_mixed_row_counts_by_the_weights_of_both_partners() -> None:
    weight = torch.tensor([1.0, 0.3, 0.0, 2.0, 0.3, 1.0])
    mix, given = BatchMix("mixup", COUNTS), batch(weight=weight)
    method = DistilledMethod(composition(mix=mix), network(7)).eval()
    torch.manual_seed(5)
    mixed = mix(given.views[:, 0], given.targets)
    own, partner = mixed.mix.lam * weight, (1 - mixed.mix.lam) * weight[mixed.partners]
    assert partner.gt(0.01).any()
    values = distillation_loss(method.classifier(mixed.images), method.teacher(mixed.images), reduction="none")
    torch.manual_seed(5)
    found = method(given, START)["distillation"]
    torch.testing.assert_close(found, 0.5 * ((own + partner) * values).mean())


def test_phases_reach_the_composition() -> None:
    mix = BatchMix("mixup", COUNTS, until=0.5)
    plain = DistilledMethod(composition(), network(7)).eval()(batch(), START)
    method = DistilledMethod(composition(mix=mix), network(7)).eval()
    for progress, mixes in ((0.0, True), (0.4, True), (0.6, False)):
        method.before_step(progress)
        same = torch.equal(method(batch(), START)["distillation"], plain["distillation"])
        assert same is not mixes, progress


def test_training_moves_the_student_and_nothing_of_the_teacher() -> None:
    method = DistilledMethod(composition(), network(7)).train()
    before = copy.deepcopy(method.teacher.state_dict())
    student = copy.deepcopy(method.classifier.state_dict())
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        sum(method(batch(), START).values()).backward()
        optimizer.step()
    assert method.training
    assert method.objective.training
    assert not method.teacher.training
    assert all(torch.equal(value, before[name]) for name, value in method.teacher.state_dict().items())
    assert not any(torch.equal(value, student[name]) for name, value in method.classifier.state_dict().items())
    assert all(p.grad is None for p in method.teacher.parameters())


def test_the_teacher_moves_with_the_method_and_is_no_part_of_its_state() -> None:
    objective, teacher = composition(), network(7)
    method = DistilledMethod(objective, teacher)
    assert {name.removeprefix("objective.") for name in method.state_dict()} == set(objective.state_dict())
    assert sum(1 for _ in method.parameters()) == sum(1 for _ in objective.parameters())
    method.to(torch.device("meta"))
    assert {parameter.device.type for parameter in teacher.parameters()} == {"meta"}
    assert {buffer.device.type for buffer in teacher.buffers()} == {"meta"}


def test_with_the_teacher_alone_the_labels_do_not_count() -> None:
    method, given = DistilledMethod(composition(), network(7), share=1.0).eval(), batch()
    terms = [method(one, START) for one in (given, given._replace(targets=given.targets.flip(0)))]
    assert all(float(one["ce"].detach()) == 0 for one in terms)
    assert torch.equal(terms[0]["distillation"], terms[1]["distillation"])


def test_after_a_bookmark_the_statistics_are_as_before() -> None:
    method = DistilledMethod(composition(), network(7)).train()
    before = copy.deepcopy(method.state_dict())
    go_back = method.bookmark()
    method(batch(), START)
    go_back()
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=r"a teacher's share in \(0, 1\]; got"):
        DistilledMethod(composition(), nn.Identity(), share=share)


def test_a_composition_that_classifies_nothing_is_refused() -> None:
    contrast = composition(SUPCON, projection=ProjectionHead(32, 4))
    with pytest.raises(InputError, match="a classification loss beside the teacher; got supcon"):
        DistilledMethod(contrast, nn.Identity())
