"""pytorch-metric-learning's variant of the supervised contrastive loss: which anchors count, and what is normalised."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rebalance.losses import supcon_loss, supcon_pml_loss

GENERATOR = torch.Generator().manual_seed(0)
VIEWS = torch.randn(5, 2, 6, generator=GENERATOR, dtype=torch.float64)
TARGETS = torch.tensor([0, 1, 0, 2, 1])


def test_is_supcon_where_every_anchor_has_a_positive_and_a_negative() -> None:
    plain = supcon_loss(F.normalize(VIEWS, dim=2), TARGETS, temperature=0.1, base_temperature=0.1)
    torch.testing.assert_close(supcon_pml_loss(VIEWS, TARGETS), plain)


def test_anchors_without_a_positive_do_not_count_in_the_mean() -> None:
    losses = supcon_pml_loss(VIEWS[:, :1], TARGETS, reduction="none")
    assert losses[3] == 0.0
    torch.testing.assert_close(supcon_pml_loss(VIEWS[:, :1], TARGETS), losses.sum() / 4)
    torch.testing.assert_close(supcon_pml_loss(VIEWS[:, :1], TARGETS, reduction="sum"), losses.sum())


def test_a_feature_without_a_direction_has_no_gradient() -> None:
    views = VIEWS.clone()
    views[0] = 0.0
    views.requires_grad_()
    supcon_pml_loss(views, TARGETS).backward()
    assert not views.grad[0].any()  # type: ignore[index]
    assert 0 < views.grad.abs().max() < 100  # type: ignore[union-attr]


def test_a_batch_of_one_class_costs_nothing() -> None:
    views = VIEWS.clone().requires_grad_()
    loss = supcon_pml_loss(views, torch.zeros(5, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0.0
    assert views.grad is not None
    assert not views.grad.any()


def test_no_positive_at_all_costs_nothing() -> None:
    assert supcon_pml_loss(VIEWS[:, :1], torch.arange(5)).item() == 0.0


def test_flat_features_are_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"expected views of shape \(B, V, D\); got \(5, 6\); features\[:, None\]"):
        supcon_pml_loss(VIEWS[:, 0], TARGETS)
