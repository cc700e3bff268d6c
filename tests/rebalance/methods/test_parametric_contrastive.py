from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rebalance.backbones import SmallCNN
from rebalance.classifier import Classifier
from rebalance.heads import ProjectionHead
from rebalance.losses import PaCoLoss
from rebalance.methods.base import Batch
from rebalance.methods.parametric_contrastive import ParametricContrastiveMethod
from rebalance.queue import FeatureQueue

COUNTS = [30, 10, 2]
START = torch.tensor(0.0)
ALPHA, TEMPERATURE = 0.05, 0.2


def batch(n: int = 6, seed: int = 0, weight: Tensor | None = None) -> Batch:
    stream = torch.Generator().manual_seed(seed)
    return Batch(
        views=torch.randn(n, 2, 3, 8, 8, generator=stream),
        targets=torch.randint(3, (n,), generator=stream),
        mix=None,
        weight=torch.ones(n) if weight is None else weight,
        synthetic=torch.zeros(n, dtype=torch.bool),
        index=torch.arange(n),
    )


def make(momentum: float | None, size: int = 16) -> ParametricContrastiveMethod:
    torch.manual_seed(0)
    classifier = Classifier(SmallCNN(width=8), 3)
    return ParametricContrastiveMethod(
        classifier,
        ProjectionHead(32, 5, batch_norm=True),
        PaCoLoss(COUNTS, alpha=ALPHA, temperature=TEMPERATURE),
        FeatureQueue(size, 5),
        momentum=momentum,
    )


def reference(logits: Tensor, rows: Tensor, labels: Tensor) -> float:
    """The mean over the anchors, which are the first rows, as plain loops."""
    total = 0.0
    for i, row in enumerate(logits.tolist()):
        centre = [z + math.log(n / sum(COUNTS) + 1e-9) for z, n in zip(row, COUNTS, strict=True)]
        others = [j for j in range(len(rows)) if j != i]
        pair = {j: float(rows[i] @ rows[j]) / TEMPERATURE for j in others}
        denominator = sum(map(math.exp, centre)) + sum(math.exp(pair[j]) for j in others)
        positives = [j for j in others if labels[j] == labels[i]]
        gained = centre[int(labels[i])] + ALPHA * sum(pair[j] for j in positives)
        total += math.log(denominator) - gained / (1 + ALPHA * len(positives))
    return total / len(logits)


def step(method: ParametricContrastiveMethod, given: Batch) -> None:
    optimizer = torch.optim.SGD([parameter for parameter in method.parameters() if parameter.requires_grad], lr=0.1)
    method.before_step(0.0)
    method(given, START)["paco"].backward()
    optimizer.step()
    method.after_step()


@pytest.mark.parametrize("momentum", [0.9, None])
def test_the_loss_is_that_of_the_networks_outputs_and_the_queue(momentum: float | None) -> None:
    method = make(momentum).eval()  # batch norm in evaluation mode, so that passes can be repeated
    step(method, batch(seed=1))
    given = batch()
    keys, key_targets = (tensor.double() for tensor in method.queue())
    assert len(keys) == 6
    with torch.no_grad():
        loss = float(method(given, START)["paco"])
        first, second = (method.classifier.backbone(given.views[:, v]) for v in (0, 1))
        logits, rows = method.classifier.logits(first), [method.projection(first)]
        if method.key_encoder is None:
            logits = torch.cat([logits, method.classifier.logits(second)])
            rows.append(method.projection(second))
        else:
            rows.append(method.key_encoder(given.views[:, 1]))
    labels = torch.cat([given.targets, given.targets, key_targets.long()])
    expected = reference(logits.double(), torch.cat([*(part.double() for part in rows), keys]), labels)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_key_encoder_follows_slowly_and_has_no_gradient() -> None:
    method = make(0.9)
    assert method.key_encoder is not None
    slow = [parameter.clone() for parameter in method.key_encoder.parameters()]
    step(method, batch())
    fast = [*method.classifier.backbone.parameters(), *method.projection.parameters()]
    assert all(parameter.grad is None for parameter in method.key_encoder.parameters())
    for before, after, online in zip(slow, method.key_encoder.parameters(), fast, strict=True):
        torch.testing.assert_close(after, 0.9 * before + 0.1 * online)
    assert any(not torch.equal(a, b) for a, b in zip(slow, method.key_encoder.parameters(), strict=True))


def test_without_a_momentum_both_views_have_gradient_and_are_anchors() -> None:
    given = batch()
    for momentum, expected in ((0.9, False), (None, True)):
        views = given.views.clone().requires_grad_()
        make(momentum)(given._replace(views=views), START)["paco"].backward()
        assert views.grad is not None
        assert bool(views.grad[:, 0].any())
        assert bool(views.grad[:, 1].any()) == expected


@pytest.mark.parametrize("momentum", [0.9, None])
def test_the_queue_gets_second_views_after_the_step_and_in_order(momentum: float | None) -> None:
    method = make(momentum).eval()
    given = batch()
    with torch.no_grad():
        features = method.classifier.backbone(given.views[:, 1])
        keys = method.projection(features)  # the key encoder starts as a copy
    method.before_step(0.0)
    method(given, START)
    assert len(method.queue()[0]) == 0
    method.after_step()
    torch.testing.assert_close(method.queue()[0], keys)
    assert torch.equal(method.queue()[1], given.targets)


def test_all_parts_of_an_accumulated_batch_are_remembered_once() -> None:
    method = make(0.9)
    for _ in range(2):  # a step that was given up, then one in two parts
        method.before_step(0.0)
        method(batch(4, seed=2), START)
        method(batch(6, seed=3), START)
    method.after_step()
    assert len(method.queue()[0]) == 10
    assert torch.equal(method.queue()[1], torch.cat([batch(4, seed=2).targets, batch(6, seed=3).targets]))


@pytest.mark.parametrize("momentum", [0.9, None])
def test_the_weight_is_the_anchors(momentum: float | None) -> None:
    method = make(momentum).eval()

    def loss(weight: Tensor) -> Tensor:
        return method(batch(weight=weight), START)["paco"]  # type: ignore[no-any-return]

    each = [loss(torch.eye(6)[i]) for i in range(6)]
    weight = torch.tensor([1.0, 0.3, 0.0, 2.0, 0.3, 1.0])
    torch.testing.assert_close(loss(weight), (torch.stack(each) * weight).sum())
    torch.testing.assert_close(loss(torch.ones(6)), torch.stack(each).sum())


def test_a_bookmark_leaves_the_queue_alone_so_that_its_length_need_not_be_read_again() -> None:
    method = make(0.999)
    method(batch(), START)
    before = [buffer._version for buffer in method.queue.buffers()]
    statistics = method.classifier.backbone.state_dict()["stages.0.1.running_mean"]
    go_back, kept = method.bookmark(), statistics.clone()
    method(batch(seed=1), START)
    go_back()
    assert [buffer._version for buffer in method.queue.buffers()] == before
    assert torch.equal(statistics, kept)


def test_nothing_is_saved_twice_and_only_the_classifier_is_left() -> None:
    state = make(0.9).state_dict()
    places = [tensor.data_ptr() for tensor in state.values() if tensor.numel()]
    assert len(set(places)) == len(places)
    assert {name.split(".")[0] for name in state} == {"_classifier", "projection", "queue", "key_encoder"}
    assert {name.split(".")[0] for name in make(None).state_dict()} == {"_classifier", "projection", "queue"}
    method = make(0.9).eval()
    images = batch().views[:, 0]
    features = method.classifier.backbone(images)
    torch.testing.assert_close(method.predict(images), method.classifier.head(features))  # no prior


def test_losses_are_float32_under_autocast() -> None:
    method = make(0.9).eval()
    full = method(batch(), START)["paco"]
    with torch.autocast("cpu", torch.bfloat16):
        half = method(batch(), START)["paco"]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)
    method.after_step()
    assert method.queue()[0].dtype == torch.float32
