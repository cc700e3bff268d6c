from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rebalance.backbones import SmallCNN
from rebalance.checkpoints import load_checkpoint, save_checkpoint
from rebalance.classifier import Classifier
from rebalance.errors import InputError
from rebalance.losses import BalancedSoftmaxLoss, CrossEntropyLoss, FocalSoftmaxLoss, LDAMLoss
from rebalance.methods.base import Batch
from rebalance.methods.composed import ComposedMethod, LossTerm
from rebalance.methods.weighting import ClassWeighting
from rebalance.schedules import Schedule

COUNTS = [30, 10, 2]
START, END = torch.tensor(0.0), torch.tensor(0.9)


def batch(n: int = 6, weight: Tensor | None = None, seed: int = 0) -> Batch:
    stream = torch.Generator().manual_seed(seed)
    return Batch(
        views=torch.randn(n, 1, 3, 8, 8, generator=stream),
        targets=torch.randint(3, (n,), generator=stream),
        mix=None,
        weight=torch.ones(n) if weight is None else weight,
        synthetic=torch.zeros(n, dtype=torch.bool),
        index=torch.arange(n),
    )


def method(*terms: LossTerm, rule: str = "none", head: str = "linear", schedule: Schedule | None = None, seed: int = 0):  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    scale = 30.0 if head == "cosine" else 1.0
    classifier = Classifier(SmallCNN(width=8), 3, head=head, scale=scale)
    chosen = terms or (LossTerm("ce", CrossEntropyLoss()),)
    return ComposedMethod(classifier, chosen, ClassWeighting(COUNTS, rule, schedule=schedule)).eval()


def logits_of(module: ComposedMethod, given: Batch) -> Tensor:
    return module.classifier(given.views[:, 0])


def test_the_terms_are_weighted_sums_over_the_batch_divided_by_its_size() -> None:
    weight = torch.tensor([1.0, 0.3, 0.0, 1.0, 0.3, 2.0])
    module, given = method(rule="inverse"), batch(weight=weight)
    logits = logits_of(module, given).detach().double()
    by_class = ClassWeighting(COUNTS, "inverse").weight
    expected = 0.0
    for i, target in enumerate(given.targets.tolist()):
        loss = float(torch.logsumexp(logits[i], 0) - logits[i, target])
        expected += float(weight[i]) * float(by_class[target]) * loss / 6
    terms = module(given, START)
    assert list(terms) == ["ce"]
    assert terms["ce"].item() == pytest.approx(expected, rel=1e-5)


def test_the_sample_weight_does_not_change_the_divisor() -> None:
    module, given = method(), batch()
    half = module(given._replace(weight=torch.full((6,), 0.5)), START)["ce"]
    torch.testing.assert_close(half, module(given, START)["ce"] / 2)


def test_rows_of_weight_zero_do_not_matter() -> None:
    module = method(rule="inverse")
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    one = batch(weight=weight)
    views, targets = one.views.clone(), one.targets.clone()
    views[[2, 4]] = 100 * torch.randn(2, 1, 3, 8, 8)
    targets[[2, 4]] = 2
    other = one._replace(views=views, targets=targets)
    assert not torch.equal(logits_of(module, one)[2], logits_of(module, other)[2])
    gradients = []
    for given in (one, other):
        module.zero_grad()
        module(given, START)["ce"].backward()
        gradients.append([parameter.grad.clone() for parameter in module.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_parts_of_a_batch_add_up_to_the_batch() -> None:
    module = method(rule="inverse")
    weight = torch.tensor([1.0, 0.3, 0.3, 1.0, 0.3, 2.0])
    given = batch(weight=weight)
    parts = [Batch(*(None if field is None else field[rows] for field in given)) for rows in (slice(0, 2), slice(2, 6))]  # type: ignore[arg-type]
    total = sum(module(part, START)["ce"] * len(part.targets) / 6 for part in parts)
    torch.testing.assert_close(total, module(given, START)["ce"])


def test_terms_are_logged_by_name_and_multiplied_by_their_share() -> None:
    alone = [method(LossTerm("a", CrossEntropyLoss())), method(LossTerm("b", FocalSoftmaxLoss()))]
    both = method(LossTerm("a", CrossEntropyLoss(), 0.1), LossTerm("b", FocalSoftmaxLoss(), 0.9))
    given = batch()
    terms = both(given, START)
    torch.testing.assert_close(terms["a"], 0.1 * alone[0](given, START)["a"])
    torch.testing.assert_close(terms["b"], 0.9 * alone[1](given, START)["b"])


def test_deferred_weights_enter_when_their_time_comes() -> None:
    deferred = method(rule="inverse", schedule=Schedule("deferred", 0.8))
    plain, weighted, given = method(), method(rule="inverse"), batch()
    torch.testing.assert_close(deferred(given, START), plain(given, START))
    torch.testing.assert_close(deferred(given, END), weighted(given, START))


def test_cosine_losses_get_cosines_and_the_others_logits() -> None:
    module = method(
        LossTerm("ldam", LDAMLoss(COUNTS), takes="cosines"), LossTerm("ce", CrossEntropyLoss()), head="cosine"
    )
    given = batch()
    cosines = module.classifier.head(module.classifier.backbone(given.views[:, 0]))
    assert cosines.detach().abs().max() <= 1 + 1e-6
    terms = module(given, START)
    torch.testing.assert_close(terms["ldam"], LDAMLoss(COUNTS)(cosines, given.targets))
    torch.testing.assert_close(terms["ce"], CrossEntropyLoss()(30 * cosines, given.targets))


@pytest.mark.parametrize(
    ("terms", "head", "message"),
    [
        ([], "linear", "at least one loss; got none"),
        ([LossTerm("ldam", LDAMLoss(COUNTS), takes="cosines")], "linear", "a cosine head for ldam; got a linear head"),
        ([LossTerm("ce", CrossEntropyLoss()), LossTerm("ce", CrossEntropyLoss())], "linear", "different losses"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(terms: list[LossTerm], head: str, message: str) -> None:
    classifier = Classifier(SmallCNN(width=8), 3, head=head)
    with pytest.raises(InputError, match=message):
        ComposedMethod(classifier, terms, ClassWeighting(COUNTS))


def test_losses_stay_in_float32_under_autocast() -> None:
    module, given = method(rule="inverse"), batch()
    with torch.autocast("cpu", torch.bfloat16):
        loss = module(given, START)["ce"]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, module(given, START)["ce"], rtol=0.05, atol=0.05)


TERMS = {
    "ce": LossTerm("ce", CrossEntropyLoss()),
    "focal": LossTerm("focal", FocalSoftmaxLoss()),
    "balanced_softmax": LossTerm("balanced_softmax", BalancedSoftmaxLoss(COUNTS)),
    "ldam": LossTerm("ldam", LDAMLoss(COUNTS), takes="cosines"),
}


@pytest.mark.parametrize("name", TERMS)
def test_a_step_saved_and_loaded_predicts_the_same(tmp_path: Path, name: str) -> None:
    head = "cosine" if TERMS[name].takes == "cosines" else "linear"
    module, fresh = (method(TERMS[name], rule="effective-number", head=head, seed=seed) for seed in (0, 1))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    images, before = batch(seed=3).views[:, 0], module.predict(batch(seed=3).views[:, 0])
    module.train()
    losses = []
    for _ in range(8):
        module.before_step(0.0)
        loss = sum(module(batch(), START).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        module.after_step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    save_checkpoint(tmp_path, 8, {"method": module}, optimizer, {})
    load_checkpoint(tmp_path, {"method": fresh}, torch.optim.SGD(fresh.parameters(), lr=0.1, momentum=0.9))
    after = module.eval().predict(images)
    assert not torch.equal(after, before)
    assert torch.equal(fresh.eval().predict(images), after)


def test_training_only_parts_are_not_in_the_classifier() -> None:
    loss = nn.Bilinear(3, 3, 1)  # any loss with weights of its own
    module = method(LossTerm("learnt", loss))
    assert "losses.learnt.weight" in module.state_dict()
    assert {name.split(".")[0] for name in module.classifier.state_dict()} == {"backbone", "head"}
