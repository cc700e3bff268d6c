from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rebalance.losses.balanced_contrastive import BalancedContrastiveLoss, balanced_contrastive_loss


def unit(*shape: int, seed: int) -> Tensor:
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(noise, dim=-1)


TARGETS = torch.tensor([0, 2, 2, 3])


def by_hand(views: Tensor, targets: Tensor, prototypes: Tensor, t: float) -> list[list[float]]:
    """The formula in plain loops: losses by image and view."""
    rows = [((i, v), views[i, v], int(targets[i])) for i in range(len(views)) for v in range(views.shape[1])]
    rows += [((-1, c), prototypes[c], c) for c in range(len(prototypes))]
    losses = []
    for i in range(len(views)):
        losses.append([])
        for v in range(views.shape[1]):
            others = [(float(views[i, v] @ f) / t, y) for name, f, y in rows if name != (i, v)]
            denominator = 0.0
            for c in range(len(prototypes)):
                of_class = [math.exp(z) for z, y in others if y == c]
                denominator += sum(of_class) / len(of_class)
            positives = [z for z, y in others if y == int(targets[i])]
            losses[-1].append(-sum(z - math.log(denominator) for z in positives) / len(positives))
    return losses


@pytest.mark.parametrize("n_views", [1, 2, 3])
def test_equals_the_formula_written_as_loops(n_views: int) -> None:
    views, prototypes = unit(4, n_views, 6, seed=1), unit(5, 6, seed=2)
    losses = balanced_contrastive_loss(views, TARGETS, prototypes, temperature=0.1, reduction="none")
    expected = torch.tensor(by_hand(views, TARGETS, prototypes, 0.1), dtype=torch.float64).mean(1)
    torch.testing.assert_close(losses, expected, rtol=1e-10, atol=1e-10)


def test_gradients_are_those_of_the_value() -> None:
    tensors = (unit(4, 2, 6, seed=1).requires_grad_(), unit(5, 6, seed=2).requires_grad_())
    assert torch.autograd.gradcheck(lambda views, rows: balanced_contrastive_loss(views, TARGETS, rows), tensors)


def test_more_images_of_another_class_do_not_weigh_more() -> None:
    """Class averaging: copies of class 2's prototype as images of class 2 leave the loss of class 0 alone."""
    prototypes = unit(5, 6, seed=2)
    anchor = unit(1, 2, 6, seed=1)
    few = torch.cat([anchor, prototypes[2].expand(1, 2, 6)])
    many = torch.cat([anchor, prototypes[2].expand(9, 2, 6)])
    loss_few = balanced_contrastive_loss(few, torch.tensor([0, 2]), prototypes, reduction="none")[0]
    loss_many = balanced_contrastive_loss(many, torch.tensor([0] + [2] * 9), prototypes, reduction="none")[0]
    torch.testing.assert_close(loss_few, loss_many)


def test_does_not_depend_on_names_of_classes_or_order_of_rows() -> None:
    views, prototypes = unit(4, 2, 6, seed=1), unit(5, 6, seed=2)
    plain = balanced_contrastive_loss(views, TARGETS, prototypes, reduction="none")
    names = torch.tensor([3, 0, 4, 1, 2])
    renamed = torch.empty_like(prototypes).index_copy(0, names, prototypes)
    torch.testing.assert_close(balanced_contrastive_loss(views, names[TARGETS], renamed, reduction="none"), plain)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = balanced_contrastive_loss(views[order], TARGETS[order], prototypes, reduction="none")
    torch.testing.assert_close(shuffled, plain[order])
    torch.testing.assert_close(balanced_contrastive_loss(views, TARGETS, prototypes), plain.mean())
    torch.testing.assert_close(BalancedContrastiveLoss()(views, TARGETS, prototypes, reduction="sum"), plain.sum())


@pytest.mark.parametrize("n", [1, 4])
def test_one_image_or_one_class_stays_finite_at_a_low_temperature(n: int) -> None:
    views = unit(n, 2, 6, seed=1).float().requires_grad_()
    prototypes = unit(5, 6, seed=2).float().requires_grad_()
    targets = torch.full((n,), 4)
    loss = BalancedContrastiveLoss(temperature=0.002)(views, targets, prototypes)
    loss.backward()
    assert loss.isfinite()
    assert views.grad.isfinite().all()
    assert prototypes.grad.isfinite().all()


def test_computes_in_float32_under_autocast_and_for_bfloat16() -> None:
    views, prototypes = unit(4, 2, 6, seed=1).float(), unit(5, 6, seed=2).float()
    plain = balanced_contrastive_loss(views, TARGETS, prototypes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(balanced_contrastive_loss(views, TARGETS, prototypes), plain)
    loss = balanced_contrastive_loss(views.bfloat16(), TARGETS, prototypes.bfloat16())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain, rtol=0.02, atol=0.0)


def test_wrong_shapes_and_numbers_are_refused() -> None:
    views, prototypes = unit(4, 2, 6, seed=1), unit(5, 6, seed=2)
    with pytest.raises(ValueError, match=r"expected views \(B, V, D\) and prototypes \(C, D\); got \(4, 6\)"):
        balanced_contrastive_loss(views[:, 0], TARGETS, prototypes)
    with pytest.raises(ValueError, match=r"expected targets of shape \(4,\)"):
        balanced_contrastive_loss(views, TARGETS[:2], prototypes)
    with pytest.raises(ValueError, match="expected a temperature > 0; got 0"):
        balanced_contrastive_loss(views, TARGETS, prototypes, temperature=0)
