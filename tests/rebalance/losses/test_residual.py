from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rebalance.losses.residual import (
    ResidualLoss,
    branch_groups,
    residual_branch_loss,
    residual_fused_loss,
    residual_loss,
)

GROUPS = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]]).bool()
TARGETS = torch.tensor([0, 4, 2, 1, 4, 3])


def logits_of(seed: int = 0) -> Tensor:
    return torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def softmax(z: list[float]) -> list[float]:
    exps = [math.exp(v) for v in z]
    return [e / sum(exps) for e in exps]


def smoothed_ce(p: list[float], y: int, eps: float, s: float) -> float:
    target = [1 - s if c == y else s / (len(p) - 1) for c in range(len(p))]
    return -sum(t * math.log(q + eps) for t, q in zip(target, p, strict=True))


@pytest.mark.parametrize(("eps", "fused_eps", "s"), [(1e-7, 0.0, 0.0), (1e-3, 1e-3, 0.1)])
def test_equals_the_formula_written_as_loops(eps: float, fused_eps: float, s: float) -> None:
    logits = logits_of()
    branch, pairs, fused = 0.0, 0, 0.0
    for z, y in zip(logits.tolist(), TARGETS.tolist(), strict=True):
        for r in range(3):
            if GROUPS[r, y]:
                branch, pairs = branch + smoothed_ce(softmax(z[r]), y, eps, s), pairs + 1
        fused += smoothed_ce(softmax([sum(column) for column in zip(*z, strict=True)]), y, fused_eps, s) / 6
    loss = residual_loss(logits, TARGETS, GROUPS, alpha=0.9, eps=eps, fused_eps=fused_eps, label_smoothing=s)
    assert float(loss) == pytest.approx(0.9 * branch / pairs + 0.1 * fused, rel=1e-12)


def test_one_branch_for_all_classes_is_cross_entropy_whatever_alpha() -> None:
    logits = logits_of()[:, :1]
    expected = F.cross_entropy(logits[:, 0], TARGETS)
    for alpha in (0.0, 0.4, 1.0):
        loss = residual_loss(logits, TARGETS, torch.ones(1, 5, dtype=torch.bool), alpha=alpha, eps=0.0)
        torch.testing.assert_close(loss, expected)


def test_without_the_branch_term_it_is_cross_entropy_of_the_sum() -> None:
    loss = residual_loss(logits_of(), TARGETS, GROUPS, alpha=0.0)
    torch.testing.assert_close(loss, F.cross_entropy(logits_of().sum(1), TARGETS))


def test_a_branch_learns_from_its_classes_alone() -> None:
    logits = logits_of().requires_grad_()
    residual_loss(logits, TARGETS, GROUPS, alpha=1.0).backward()
    taught = logits.grad.abs().sum(2) > 0  # (B, R)
    assert torch.equal(taught, GROUPS.T[TARGETS])


def test_gradients_are_those_of_the_value() -> None:
    logits = logits_of().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: residual_loss(z, TARGETS, GROUPS, reduction="none"), (logits,))


def test_does_not_depend_on_names_of_classes_or_order_of_rows() -> None:
    logits, names, rows = logits_of(), torch.tensor([3, 0, 4, 1, 2]), torch.tensor([5, 2, 0, 4, 1, 3])
    losses = residual_loss(logits, TARGETS, GROUPS, reduction="none")
    renamed = residual_loss(logits[..., names], names.argsort()[TARGETS], GROUPS[:, names], reduction="none")
    torch.testing.assert_close(renamed, losses)
    torch.testing.assert_close(residual_loss(logits[rows], TARGETS[rows], GROUPS, reduction="none"), losses[rows])


def test_a_batch_that_no_branch_answers_for_gives_zero_not_nan() -> None:
    logits = logits_of().requires_grad_()
    loss = residual_branch_loss(logits, TARGETS, torch.zeros_like(GROUPS)).mean()
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_extreme_logits_are_bounded_by_eps_and_exact_without() -> None:
    logits = torch.zeros(1, 1, 3)
    logits[0, 0, 1] = 1e4
    groups = torch.ones(1, 3, dtype=torch.bool)
    bounded = residual_loss(logits, torch.tensor([0]), groups, alpha=1.0)
    assert float(bounded) == pytest.approx(-math.log(1e-7), rel=1e-6)
    assert float(residual_loss(logits, torch.tensor([0]), groups, alpha=1.0, eps=0.0)) == pytest.approx(1e4)


def test_terms_and_reductions_belong_together() -> None:
    logits = logits_of()
    module = ResidualLoss(GROUPS, alpha=0.7)
    losses = module(logits, TARGETS, reduction="none")
    assert losses.shape == (6,)
    branch, fused = residual_branch_loss(logits, TARGETS, GROUPS), residual_fused_loss(logits, TARGETS)
    torch.testing.assert_close(losses, 0.7 * branch + 0.3 * fused)
    torch.testing.assert_close(module(logits, TARGETS), losses.mean())
    torch.testing.assert_close(module(logits, TARGETS, reduction="sum"), losses.sum())


def test_computes_in_float32_for_bfloat16() -> None:
    loss = residual_loss(logits_of().bfloat16(), TARGETS, GROUPS)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), residual_loss(logits_of(), TARGETS, GROUPS), rtol=0.02, atol=0.0)


def test_groups_are_the_rarest_classes_of_the_originals() -> None:
    cifar10 = branch_groups(range(10, 0, -1), shares=(1.0, 0.8, 0.6))
    assert [group.nonzero().squeeze(1).tolist()[:1] for group in cifar10] == [[0], [2], [4]]
    cifar100 = branch_groups(range(100, 0, -1))
    assert cifar100.sum(1).tolist() == [100, 65, 30]
    assert not cifar100[2, :70].any()
    imagenet = branch_groups(range(1, 1001), shares=(1.0, 0.825, 0.22))  # ascending there: small index = rare
    assert imagenet.sum(1).tolist() == [1000, 825, 220]
    assert imagenet[2, :220].all()


def test_wrong_shapes_and_shares_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected logits \(B, R, C\) and bool groups \(R, C\); got \(6, 3, 5\)"):
        residual_loss(logits_of(), TARGETS, GROUPS[:2])
    with pytest.raises(ValueError, match=r"bool groups.*torch.int64"):
        residual_loss(logits_of(), TARGETS, GROUPS.long())
    with pytest.raises(ValueError, match=r"expected shares in \(0, 1\]; got \(1.0, 0\)"):
        branch_groups([3, 2, 1], shares=(1.0, 0))
