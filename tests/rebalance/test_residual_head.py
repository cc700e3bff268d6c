from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rebalance.errors import InputError
from rebalance.residual_head import ResidualConvHead, ResidualNormHead


def maps(n: int = 6) -> Tensor:
    return torch.randn(n, 4, 3, 2, generator=torch.Generator().manual_seed(0))


def conv_head(
    *, pool_first: bool = False, evaluation: Literal["official", "as_trained"] = "official", tau: float = 0.0
) -> ResidualConvHead:
    torch.manual_seed(0)
    head = ResidualConvHead(4, 5, n_branches=2, pool_first=pool_first, evaluation=evaluation, tau=tau)
    for _ in range(20):  # running statistics of something
        head(maps() * 2 + 1)
    return head


@pytest.mark.parametrize("head", [ResidualNormHead(4, 5), ResidualConvHead(4, 5)])
def test_each_branch_has_logits_and_all_parameters_learn(head: torch.nn.Module) -> None:
    logits = head(maps())
    assert logits.shape == (6, 3, 5)
    logits.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in head.parameters())


def test_norm_branches_are_alike_until_their_norms_differ() -> None:
    head = ResidualNormHead(4, 5, n_branches=2)
    logits = head(maps())
    torch.testing.assert_close(logits[:, 0], logits[:, 1])
    head.norms[1].bias.data.fill_(1.0)
    moved = head(maps())
    torch.testing.assert_close(moved[:, 0], logits[:, 0])
    torch.testing.assert_close(moved[:, 1], logits[:, 1] + head.classifier.weight.sum(1))


def test_conv_branch_reads_its_own_channels() -> None:
    head = conv_head(evaluation="as_trained").eval()
    before = head(maps())
    head.split[0].weight.data[4:].zero_()  # the second branch's channels
    after = head(maps())
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert not torch.allclose(after[:, 1], before[:, 1])


@pytest.mark.parametrize("pool_first", [False, True])
def test_evaluation_as_trained_keeps_order_and_bias(pool_first: bool) -> None:
    head = conv_head(pool_first=pool_first, evaluation="as_trained").eval()
    inner = maps().mean(dim=(2, 3), keepdim=True) if pool_first else maps()
    pooled = head.split(inner).mean(dim=(2, 3))
    expected = torch.stack([head.classifier(pooled[:, :4]), head.classifier(pooled[:, 4:])], 1)
    torch.testing.assert_close(head(maps()), expected)


def test_official_evaluation_pools_first_normalises_and_drops_the_bias() -> None:
    head = conv_head(tau=0.7).eval()
    pooled = head.split(maps().mean(dim=(2, 3), keepdim=True)).flatten(1)
    weight = head.classifier.weight / head.classifier.weight.norm(dim=1, keepdim=True) ** 0.7
    expected = torch.stack([F.linear(pooled[:, :4], weight), F.linear(pooled[:, 4:], weight)], 1)
    torch.testing.assert_close(head(maps()), expected)


def test_tau_acts_in_evaluation_alone() -> None:
    head = conv_head(evaluation="as_trained", tau=1.0)
    plain = conv_head(evaluation="as_trained")
    torch.testing.assert_close(head(maps()), plain(maps()))
    assert not torch.allclose(head.eval()(maps()), plain.eval()(maps()))


def test_an_unknown_evaluation_is_refused() -> None:
    with pytest.raises(InputError, match="expected evaluation 'official' or 'as_trained'; got 'test'"):
        ResidualConvHead(4, 5, evaluation="test")
