from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipelines.config_groups import OptimizationConfig
from pipelines.optimization import build_optimizer, set_learning_rate
from rebalance.backbones import SmallCNN
from rebalance.classifier import Classifier
from rebalance.errors import InputError
from rebalance.losses import CrossEntropyLoss
from rebalance.methods.base import Batch
from rebalance.methods.second_stage import SecondStageMethod

START = torch.tensor(0.0)


def batch(n: int = 6, weight: Tensor | None = None) -> Batch:
    stream = torch.Generator().manual_seed(0)
    return Batch(
        views=torch.randn(n, 1, 3, 8, 8, generator=stream),
        targets=torch.arange(n) % 3,
        mix=None,
        weight=torch.ones(n) if weight is None else weight,
        synthetic=torch.zeros(n, dtype=torch.bool),
        index=torch.arange(n),
    )


def make(head: str = "linear", **options: float) -> SecondStageMethod:
    torch.manual_seed(0)
    classifier = Classifier(SmallCNN(width=8), 3, head=head)
    return SecondStageMethod(classifier, CrossEntropyLoss(), **options)  # type: ignore[arg-type]


def train(method: SecondStageMethod, updates: int = 3) -> set[str]:
    """Names of the tensors that a training with momentum and weight decay changes."""
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    config = OptimizationConfig(lr=0.1, weight_decay=0.01, warmup_epochs=0)
    optimizer = build_optimizer(method, config, method.learning_rate_factors)
    method.train()
    for update in range(updates):
        set_learning_rate(optimizer, config, 0.0, 1.0)
        method.before_step(update / updates)
        sum(method(batch(), START).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        method.eval()  # as an evaluation leaves it
    return {name for name, tensor in method.state_dict().items() if not torch.equal(tensor, before[name])}


def test_the_head_alone_learns_and_statistics_move_where_they_are_to() -> None:
    head = {"_classifier.head.weight", "_classifier.head.bias"}
    assert train(make(shift_batch_norm=False)) == head
    shifted = train(make(shift_batch_norm=True))
    assert shifted > head
    assert all("running_" in name or "num_batches" in name for name in shifted - head)


def test_scales_learn_at_the_full_rate_and_the_head_under_them_at_its_share() -> None:
    scales, weight = "_classifier.head.scaling.scales", "_classifier.head.linear.weight"
    assert train(make("scaled_linear", shift_batch_norm=False, head_factor=0.0)) == {scales}
    assert {scales, weight} < train(make("scaled_linear", shift_batch_norm=False, head_factor=0.5))
    method = make("scaled_linear", head_factor=0.5)
    config = OptimizationConfig(lr=0.1, warmup_epochs=0)
    optimizer = build_optimizer(method, config, method.learning_rate_factors)
    set_learning_rate(optimizer, config, 0.0, 1.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(method.named_parameters())
    assert rates[id(parameters[scales])] == 0.1
    assert rates[id(parameters[weight])] == 0.05


def test_scales_are_folded_into_the_head_that_is_saved() -> None:
    method = make("scaled_linear", head_factor=0.5)
    train(method)
    method.eval()
    plain = method.export(method.classifier)
    assert plain.head_name == "linear"
    images = batch().views[:, 0]
    torch.testing.assert_close(plain(images), method.predict(images))
    unscaled = make()
    assert unscaled.export(unscaled.classifier) is unscaled.classifier


def test_a_sample_counts_by_its_weight() -> None:
    method = make(shift_batch_norm=False)
    method.before_step(0.0)
    one, other = torch.rand(2, 6)
    terms = [method(batch(weight=weight), START)["classification"] for weight in (one, other, one + other)]
    torch.testing.assert_close(terms[2], terms[0] + terms[1])


def test_a_negative_rate_is_refused() -> None:
    with pytest.raises(InputError, match="head_factor >= 0; got -1"):
        make("scaled_linear", head_factor=-1.0)
