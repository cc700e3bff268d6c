from __future__ import annotations

import pytest
import torch
from torch import nn

from rebalance.errors import InputError
from rebalance.momentum import MomentumEncoder


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def test_follows_with_the_powers_of_its_momentum() -> None:
    fast = network().double()
    slow = MomentumEncoder(fast, momentum=0.9)
    start = fast[0].weight.detach().clone()
    for step in range(1, 4):
        fast[0].weight.data.copy_(start + step)
        slow.update(fast)
    expected = start + 0.1 * (1 * 0.81 + 2 * 0.9 + 3)
    torch.testing.assert_close(slow.encoder[0].weight.data, expected)


def test_starts_as_a_copy_that_an_optimiser_of_the_original_leaves_alone() -> None:
    fast = network()
    slow = MomentumEncoder(fast)
    images = torch.randn(5, 3)
    before = slow(images)
    torch.testing.assert_close(before, fast(images))
    for weight in fast.parameters():
        weight.data.add_(1)
    torch.testing.assert_close(slow(images), before)


def test_carries_no_gradient() -> None:
    slow = MomentumEncoder(network())
    assert not any(weight.requires_grad for weight in slow.parameters())
    assert not slow(torch.randn(5, 3, requires_grad=True)).requires_grad


def test_batch_norm_statistics_are_its_own() -> None:
    fast = network()
    slow = MomentumEncoder(fast)
    slow(torch.randn(5, 3) + 7)
    slow.update(fast)
    assert slow.encoder[1].running_mean.any()
    assert not fast[1].running_mean.any()


def test_state_survives_saving_and_loading() -> None:
    fast = network()
    slow, other = MomentumEncoder(fast, momentum=0.5), MomentumEncoder(network())
    fast[0].weight.data.add_(1)
    slow.update(fast)
    other.load_state_dict(slow.state_dict())
    images = torch.randn(5, 3)
    torch.testing.assert_close(other.eval()(images), slow.eval()(images))


def test_another_network_and_a_wrong_momentum_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        MomentumEncoder(network()).update(nn.Linear(3, 4))
    with pytest.raises(InputError, match=r"expected a momentum in \[0, 1\]; got 1.5"):
        MomentumEncoder(network(), momentum=1.5)
