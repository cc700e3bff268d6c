from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rebalance.backbones import SmallCNN
from rebalance.classifier import Classifier
from rebalance.heads import ProjectionHead
from rebalance.losses import PaCoLoss
from rebalance.methods.base import Batch, Method
from rebalance.methods.parametric_contrastive import ParametricContrastiveMethod
from rebalance.queue import FeatureQueue
from rebalance.sharpness import perturb, sharpness_aware

ZERO = torch.tensor(0.0)


class TwoLayers(Method):
    """A tanh network, with batch norm where asked for, that counts how often it is asked."""

    asked: Tensor

    def __init__(self, dtype: torch.dtype = torch.float64, *, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(3, 4, bias=False, dtype=dtype), nn.Linear(4, 3, dtype=dtype)
        self.norm = nn.BatchNorm1d(4, dtype=dtype) if norm else nn.Identity()
        self.frozen: list[nn.Parameter] = []
        self.register_buffer("asked", torch.tensor(0))

    @property
    def classifier(self) -> Classifier:
        raise NotImplementedError

    def frozen_parameters(self) -> Iterable[nn.Parameter]:
        return self.frozen

    def forward(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        self.asked += 1
        return {"ce": nn.functional.cross_entropy(self.logits(batch.views), batch.targets)}

    def logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.two(self.norm(torch.tanh(self.one(images))))
        return logits


def batch(n: int = 5, dtype: torch.dtype = torch.float64) -> Batch:
    stream = torch.Generator().manual_seed(1)
    return Batch(
        torch.randn(n, 3, generator=stream, dtype=torch.float64).to(dtype),
        torch.arange(n) % 3,
        None,
        torch.ones(n),
        torch.zeros(n, dtype=torch.bool),
        torch.arange(n),
    )


def passes(method: Method, given: Batch, factor: float = 1.0) -> Callable[[], Tensor]:
    """A forward and backward pass."""

    def accumulate() -> Tensor:
        loss = factor * torch.stack(list(method(given, ZERO).values())).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    return accumulate


def values(method: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in method.state_dict().items()}


# An independent reference: one hidden layer of tanh, softmax cross entropy, in plain loops.

Matrix = list[list[float]]


def reference_gradients(
    first: Matrix, second: Matrix, bias: list[float], rows: Matrix, targets: list[int]
) -> list[Matrix]:
    d_first = [[0.0] * len(row) for row in first]
    d_second = [[0.0] * len(row) for row in second]
    d_bias = [0.0] * len(bias)
    for x, y in zip(rows, targets, strict=True):
        hidden = [math.tanh(sum(w * v for w, v in zip(weights, x, strict=True))) for weights in first]
        scores = [
            b + sum(w * h for w, h in zip(weights, hidden, strict=True))
            for weights, b in zip(second, bias, strict=True)
        ]
        total = sum(math.exp(score) for score in scores)
        errors = [(math.exp(score) / total - (c == y)) / len(rows) for c, score in enumerate(scores)]
        for c, error in enumerate(errors):
            d_bias[c] += error
            for j, h in enumerate(hidden):
                d_second[c][j] += error * h
        for j, h in enumerate(hidden):
            back = sum(error * second[c][j] for c, error in enumerate(errors)) * (1 - h * h)
            for k, v in enumerate(x):
                d_first[j][k] += back * v
    return [d_first, d_second, [d_bias]]


def moved(weights: list[Matrix], gradients: list[Matrix], factor: float) -> list[Matrix]:
    return [
        [[w + factor * g for w, g in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]
        for matrices in zip(weights, gradients, strict=True)
    ]


@pytest.mark.parametrize("rho", [0.05, 0.8])
def test_updates_are_those_of_the_paper(rho: float) -> None:
    method, given, rate = TwoLayers(), batch(), 0.3
    optimizer = torch.optim.SGD(method.parameters(), lr=rate)
    weights = [method.one.weight.tolist(), method.two.weight.tolist(), [method.two.bias.tolist()]]
    for _ in range(4):
        sharpness_aware(method, passes(method, given), rho=rho)
        optimizer.step()
        optimizer.zero_grad()
        data = (given.views.tolist(), given.targets.tolist())
        gradients = reference_gradients(weights[0], weights[1], weights[2][0], *data)
        norm = math.sqrt(sum(g * g for matrix in gradients for row in matrix for g in row))
        worst = moved(weights, gradients, rho / norm)
        weights = moved(weights, reference_gradients(worst[0], worst[1], worst[2][0], *data), -rate)
    for tensor, expected in zip(method.parameters(), (weights[0], weights[1], weights[2][0]), strict=True):
        np.testing.assert_allclose(tensor.detach().numpy(), expected, rtol=1e-12)


def test_weights_come_back_to_the_bit_and_the_first_pass_is_what_is_returned() -> None:
    method, given = TwoLayers(torch.float32), batch(dtype=torch.float32)
    nn.init.normal_(method.one.weight, std=1e-3)
    before, seen = values(method), []
    accumulate = passes(method, given)

    def watched() -> Tensor:
        seen.append(torch.cat([p.detach().flatten() for p in method.parameters()]))
        return accumulate()

    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(method.logits(given.views), given.targets)
    assert torch.equal(sharpness_aware(method, watched, rho=0.7), loss)
    assert len(seen) == 2
    assert float((seen[1] - seen[0]).norm()) == pytest.approx(0.7, rel=1e-5)
    for name, parameter in method.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_weights_come_back_after_an_error() -> None:
    method, calls = TwoLayers(torch.float32, norm=True), []
    accumulate = passes(method, batch(dtype=torch.float32))

    def failing() -> Tensor:
        calls.append(accumulate())
        if len(calls) == 2:
            raise KeyboardInterrupt
        return calls[-1]

    one = TwoLayers(torch.float32, norm=True)
    passes(one, batch(dtype=torch.float32))()
    with pytest.raises(KeyboardInterrupt):
        sharpness_aware(method, failing, rho=0.5)
    torch.testing.assert_close(values(method), values(one), rtol=0, atol=0)


def test_forward_leaves_behind_what_one_pass_leaves() -> None:
    """Batch-norm statistics and counters."""
    one, two = TwoLayers(norm=True), TwoLayers(norm=True)
    for _ in range(3):
        passes(one, batch())()
        sharpness_aware(two, passes(two, batch()), rho=0.5)
    assert int(two.asked) == 3
    torch.testing.assert_close(values(two), values(one), rtol=0, atol=0)


def test_both_passes_begin_with_the_same_buffers() -> None:
    method, begun = TwoLayers(norm=True), []
    accumulate = passes(method, batch())

    def watched() -> Tensor:
        begun.append([buffer.clone() for buffer in method.buffers()])
        return accumulate()

    sharpness_aware(method, watched, rho=0.5)
    assert all(torch.equal(a, b) for a, b in zip(*begun, strict=True))


@pytest.mark.parametrize("momentum", [0.9, None])
def test_keys_wait_once_for_the_queue_and_are_those_of_the_weights(momentum: float | None) -> None:
    methods = []
    for sharp in (False, True):
        torch.manual_seed(0)
        backbone = SmallCNN(width=8)
        method = ParametricContrastiveMethod(
            Classifier(backbone, 3),
            ProjectionHead(backbone.n_features, 8),
            PaCoLoss([30, 10, 2]),
            FeatureQueue(12, 8),
            momentum=momentum,
        )
        images = torch.randn(6, 2, 3, 8, 8)
        accumulate = passes(method, batch(6)._replace(views=images))
        method.before_step(0.0)
        if sharp:
            sharpness_aware(method, accumulate, rho=0.5)
        else:
            accumulate()
        method.after_step()
        methods.append(method)
    plain, sharp_one = methods
    assert int(sharp_one.queue.filled) == 6
    torch.testing.assert_close(values(sharp_one), values(plain), rtol=0, atol=0)


@pytest.mark.parametrize("factor", [2.0**16, 2.0**-16])
def test_a_factor_of_the_loss_does_not_change_the_perturbation(factor: float) -> None:
    gradients = []
    for scale in (1.0, factor):
        method = TwoLayers(torch.float32)
        sharpness_aware(method, passes(method, batch(dtype=torch.float32), scale), rho=0.5)
        gradients.append([p.grad / scale for p in method.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("first", "second"),
    [(0.0, 0.0), (1e-38, 0.0), (math.inf, 1.0), (-math.inf, math.inf), (math.nan, 1.0), (3e38, 3e38)],
)
def test_gradients_without_a_direction_move_nothing(first: float, second: float) -> None:
    """Zero, not finite, or too long for float32."""
    parameters = [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([[3.0]]))]
    parameters[0].grad, parameters[1].grad = torch.tensor([first, second]), torch.tensor([[1.0 if second else 0.0]])
    perturb(parameters, 0.5)
    assert torch.cat([p.detach().flatten() for p in parameters]).tolist() == [1.0, 2.0, 3.0]


def test_a_loss_of_no_slope_trains_nothing_and_breaks_nothing() -> None:
    method = TwoLayers()
    before = values(method)
    sharpness_aware(method, passes(method, batch(), 0.0), rho=0.5)
    assert all(p.grad is not None and not p.grad.any() for p in method.parameters())
    assert torch.equal(method.one.weight, before["one.weight"])


def test_frozen_parameters_and_those_without_a_gradient_are_no_part_of_it() -> None:
    method, at = TwoLayers(), []
    method.frozen = list(method.two.parameters())[:1]
    method.two.bias.requires_grad_(False)
    accumulate = passes(method, batch())

    def watched() -> Tensor:
        at.append([p.detach().clone() for p in method.parameters()])
        return accumulate()

    sharpness_aware(method, watched, rho=0.5)
    one, weight, bias = (after - before for before, after in zip(*at, strict=True))
    assert float(one.norm()) == pytest.approx(0.5)
    assert not weight.any()
    assert not bias.any()


def test_a_method_of_no_gradient_at_all() -> None:
    perturb([nn.Parameter(torch.ones(2))], 0.5)
    perturb([], 0.5)
