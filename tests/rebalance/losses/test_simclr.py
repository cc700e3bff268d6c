"""SimCLR's NT-Xent: against cross entropy over similarities."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rebalance.losses import SimCLRLoss, simclr_loss

GENERATOR = torch.Generator().manual_seed(0)
VIEWS = F.normalize(torch.randn(5, 2, 6, generator=GENERATOR, dtype=torch.float64), dim=2)


def test_is_cross_entropy_of_similarities_with_the_other_view_as_target() -> None:
    flat = torch.cat([VIEWS[:, 0], VIEWS[:, 1]])
    similarity = (flat @ flat.T / 0.5).masked_fill(torch.eye(10, dtype=torch.bool), -torch.inf)
    expected = F.cross_entropy(similarity, (torch.arange(10) + 5) % 10)
    torch.testing.assert_close(simclr_loss(VIEWS), expected)


def test_base_temperature_and_mode_are_passed_on() -> None:
    torch.testing.assert_close(SimCLRLoss(base_temperature=0.07)(VIEWS), simclr_loss(VIEWS) * (0.5 / 0.07))
    assert not torch.allclose(SimCLRLoss(mode="one")(VIEWS), simclr_loss(VIEWS))
    assert not torch.allclose(SimCLRLoss(temperature=0.1)(VIEWS), simclr_loss(VIEWS))


def test_labels_are_not_read() -> None:
    torch.testing.assert_close(SimCLRLoss()(VIEWS, torch.zeros(5, dtype=torch.int64)), simclr_loss(VIEWS))
