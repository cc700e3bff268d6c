"""Supervised contrastive loss: against loops, identities, where the original underflows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rebalance.losses import SupConLoss, simclr_loss, supcon_loss

GENERATOR = torch.Generator().manual_seed(0)
VIEWS = F.normalize(torch.randn(5, 3, 6, generator=GENERATOR, dtype=torch.float64), dim=2)
TARGETS = torch.tensor([0, 1, 0, 2, 1])


def loop(
    views: Tensor, is_positive: list[list[float]], temperature: float, base_temperature: float, mode: str
) -> list[float]:
    """The loss of each sample, written from the paper's equation."""
    batch_size, n_views, _ = views.shape
    vectors = {(i, v): views[i, v].tolist() for i in range(batch_size) for v in range(n_views)}

    def similarity(a: tuple[int, int], b: tuple[int, int]) -> float:
        return sum(x * y for x, y in zip(vectors[a], vectors[b], strict=True)) / temperature

    losses = []
    for i in range(batch_size):
        of_anchors = []
        for v in range(n_views if mode == "all" else 1):
            anchor = (i, v)
            others = [key for key in vectors if key != anchor]
            log_denominator = math.log(sum(math.exp(similarity(anchor, key)) for key in others))
            pairs = [(is_positive[i][key[0]], similarity(anchor, key) - log_denominator) for key in others]
            total = sum(share for share, _ in pairs)
            of_anchors.append(-sum(share * log_p for share, log_p in pairs) / total if total else 0.0)
        losses.append(temperature / base_temperature * sum(of_anchors) / len(of_anchors))
    return losses


def same_class(targets: Tensor) -> list[list[float]]:
    return (targets[:, None] == targets).double().tolist()


@pytest.mark.parametrize("mode", ["all", "one"])
@pytest.mark.parametrize(("temperature", "base_temperature"), [(0.07, 0.07), (0.2, 0.07), (0.5, 1.0)])
@pytest.mark.parametrize("n_views", [1, 2, 3])
def test_is_the_paper_s_equation(n_views: int, temperature: float, base_temperature: float, mode: Any) -> None:
    views = VIEWS[:, :n_views]
    expected = loop(views, same_class(TARGETS), temperature, base_temperature, mode)
    module = SupConLoss(temperature=temperature, base_temperature=base_temperature, mode=mode)
    losses = module(views, TARGETS, reduction="none")
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))


def test_features_of_any_shape_are_flattened() -> None:
    assert torch.equal(supcon_loss(VIEWS.unflatten(2, (2, 3)), TARGETS), supcon_loss(VIEWS, TARGETS))
    assert torch.equal(simclr_loss(VIEWS.unflatten(2, (2, 3))), simclr_loss(VIEWS))


@pytest.mark.parametrize("mode", ["all", "one"])
def test_takes_any_mask(mode: Any) -> None:
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0.5, 0, 0, 1]])
    expected = loop(VIEWS, mask.tolist(), 0.1, 0.07, mode)
    losses = supcon_loss(VIEWS, mask=mask, temperature=0.1, mode=mode, reduction="none")
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(
        supcon_loss(VIEWS, mask=torch.tensor(same_class(TARGETS)), mode=mode), supcon_loss(VIEWS, TARGETS, mode=mode)
    )


def test_unique_labels_are_nt_xent() -> None:
    unique = supcon_loss(VIEWS, torch.arange(5), temperature=0.5, base_temperature=0.5)
    torch.testing.assert_close(unique, simclr_loss(VIEWS))
    torch.testing.assert_close(unique, supcon_loss(VIEWS, temperature=0.5, base_temperature=0.5))


def test_identical_features_give_the_log_of_the_number_of_others() -> None:
    loss = supcon_loss(VIEWS[:1, :1].expand(5, 2, 6), TARGETS)
    assert loss.item() == pytest.approx(math.log(9))


def test_base_temperature_only_rescales() -> None:
    torch.testing.assert_close(
        supcon_loss(VIEWS, TARGETS, temperature=0.2, base_temperature=0.2) * (0.2 / 0.07),
        supcon_loss(VIEWS, TARGETS, temperature=0.2),
    )


def test_a_sample_without_a_positive_costs_nothing_and_counts_in_the_mean() -> None:
    losses = supcon_loss(VIEWS[:, :1], TARGETS, reduction="none")
    assert losses[3] == 0.0
    assert (losses[[0, 1, 2, 4]] > 0).all()
    torch.testing.assert_close(supcon_loss(VIEWS[:, :1], TARGETS), losses.sum() / 5)


def test_weight_is_that_of_the_anchor_s_class() -> None:
    weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    losses = supcon_loss(VIEWS, TARGETS, reduction="none")
    weighted = SupConLoss(weight=weight)(VIEWS, TARGETS, reduction="none")
    torch.testing.assert_close(weighted, losses * weight[TARGETS])
    mean = supcon_loss(VIEWS, TARGETS, weight=weight, reduction="weighted_mean")
    torch.testing.assert_close(mean, weighted.sum() / weight[TARGETS].sum())


@pytest.mark.parametrize("temperature", [0.001, 0.005])
def test_float32_survives_a_low_temperature(temperature: float) -> None:
    views = VIEWS.float().requires_grad_()
    loss = supcon_loss(views, TARGETS, temperature=temperature)
    loss.backward()
    exact = supcon_loss(VIEWS, TARGETS, temperature=temperature)
    torch.testing.assert_close(loss.detach().double(), exact, rtol=1e-5, atol=0)
    assert views.grad is not None
    assert views.grad.isfinite().all()


def test_float16_survives_opposite_views() -> None:
    views = torch.tensor([[[1.0, 0.0]], [[-0.6, 0.8]], [[-0.6, -0.8]]], dtype=torch.float16)
    loss = supcon_loss(views, torch.tensor([0, 0, 1]))
    exact = supcon_loss(views.double(), torch.tensor([0, 0, 1]))
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)


def test_a_single_view_alone_has_a_zero_gradient() -> None:
    views = VIEWS[:1, :1].clone().requires_grad_()
    for reduction, shape in (("mean", ()), ("none", (1,))):
        loss = supcon_loss(views, TARGETS[:1], reduction=reduction)
        assert loss.shape == shape
        (grad,) = torch.autograd.grad(loss.sum(), views)
        assert not loss.any()
        assert not grad.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": VIEWS[:, 0]}, r"expected views of shape \(B, V, D\); got \(5, 6\)"),
        ({"targets": TARGETS[:4]}, r"expected targets of shape \(5,\), .*; got \(4,\)"),
        ({"mask": torch.ones(5, 5)}, "expected targets or a mask; got both"),
        ({"targets": None, "mask": torch.ones(15, 15)}, r"expected a mask of shape \(5, 5\); got \(15, 15\)"),
        ({"targets": None, "weight": torch.ones(3)}, "expected targets beside class weights"),
        ({"mode": "two"}, "expected mode 'all' or 'one'; got 'two'"),
        ({"temperature": 0.0}, "expected a temperature > 0; got 0.0"),
    ],
)
def test_wrong_input_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        supcon_loss(**{"views": VIEWS, "targets": TARGETS, **options})
