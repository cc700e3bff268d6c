"""What every classification, angular and contrastive loss has in common, checked on every one of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rebalance import losses

COUNTS = [500, 120, 30, 8, 1]
C = len(COUNTS)
WEIGHT = [0.2, 0.5, 1.0, 1.5, 1.8]
LossCase = Any
"""See the fixtures of losses: `name`, `make` and `takes_weight`."""
Batch = Callable[..., tuple[Tensor, Tensor]]
Gradient = Callable[..., tuple[Tensor, Tensor]]


def test_the_fixtures_name_every_loss(loss_names: list[str]) -> None:
    tested = {name.split()[0] for name in loss_names} | {"AMSoftmaxLoss"}
    declared = {name for name in losses.__all__ if name.endswith("Loss")}
    own_inputs = {"BalancedContrastiveLoss", "DistillationLoss", "PaCoLoss", "ResidualLoss"}
    assert declared - own_inputs == tested


def test_all_is_sorted_and_complete() -> None:
    public = {
        name
        for name, value in vars(losses).items()
        if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))
    }
    assert public == set(losses.__all__)
    assert losses.__all__ == [
        *sorted(n for n in losses.__all__ if n[0].isupper()),
        *sorted(n for n in losses.__all__ if n[0].islower()),
    ]


def test_default_call_of_every_function(batch: Batch, unit_views: Batch) -> None:
    scores, targets = batch()
    views, labels = unit_views()
    counts = torch.tensor(COUNTS)
    third = {
        "balanced_softmax_loss": losses.log_class_prior(counts),
        "label_aware_smoothing_loss": losses.label_smoothing_by_class(counts),
        "ldam_logits": losses.ldam_margins(counts),
        "ldam_loss": losses.ldam_margins(counts),
        "logit_adjustment_loss": losses.logit_adjustments(counts),
        "region_rebalance_loss": losses.logit_adjustments(counts),
        "sphereface_logits": torch.ones(len(targets)),
        "sphereface_loss": torch.ones(len(targets)),
    }
    for name in losses.__all__:
        function = getattr(losses, name)
        if name in ("simclr_loss", "supcon_loss", "supcon_pml_loss"):
            value = function(views, labels)
        elif name.startswith(("paco_", "residual_", "branch_", "distillation_", "balanced_contrastive_")):
            continue  # their inputs are their own
        elif name.endswith(("_loss", "_logits")) and name != "adjust_logits":
            value = function(scores, targets, *([third[name]] if name in third else []))
            assert value.shape == (scores.shape if name.endswith("_logits") else ())
        elif name == "adjust_logits":
            value = function(scores, counts)
        elif name == "sigmoid_bias":
            value = torch.tensor(function(C))
        elif name == "sphereface_annealing":
            value = function(1)
        elif name.endswith("Loss"):
            continue  # every test below calls them
        else:  # counts → (C,)
            value = function(counts)
            assert value.shape == (C,)
            assert value.dtype == torch.float64
        assert value.isfinite().all()


def test_default_call_of_losses_with_inputs_of_their_own(batch: Batch, unit_views: Batch) -> None:
    scores, targets = batch()
    views, _ = unit_views(7)
    counts, branches = torch.tensor(COUNTS), torch.stack([scores, 2 * scores, -scores], dim=1)
    groups = losses.branch_groups(counts)
    prototypes = nn.functional.normalize(torch.eye(C, 8, dtype=torch.float64), dim=1)
    calls = {
        "paco": (
            losses.paco_loss(scores, views, targets, log_prior=losses.paco_log_prior(counts)),
            losses.PaCoLoss(counts)(scores, views, targets),
        ),
        "bcl": (
            losses.balanced_contrastive_loss(views, targets, prototypes),
            losses.BalancedContrastiveLoss()(views, targets, prototypes),
        ),
        "reslt": (
            losses.residual_loss(branches, targets, groups),
            losses.ResidualLoss(groups)(branches, targets),
            0.995 * losses.residual_branch_loss(branches, targets, groups).mean()
            + 0.005 * losses.residual_fused_loss(branches, targets).mean(),
        ),
    }
    for name, values in calls.items():
        assert all(value.shape == () and value.isfinite() and value > 0 for value in values), name
        for value in values[1:]:
            torch.testing.assert_close(value, values[0], msg=name)


def test_reductions_agree(batch: Batch, logit_loss: LossCase) -> None:
    scores, targets = batch()
    module = logit_loss.make(COUNTS, weight=WEIGHT) if logit_loss.takes_weight else logit_loss.make(COUNTS)
    inner = module if hasattr(module, "weight") else module.loss
    per_sample = module(scores, targets, reduction="none")
    assert per_sample.shape == targets.shape
    torch.testing.assert_close(module(scores, targets, reduction="sum"), per_sample.sum())
    torch.testing.assert_close(module(scores, targets), per_sample.sum() / len(targets))
    divisor = inner.weight[targets].sum()
    torch.testing.assert_close(module(scores, targets, reduction="weighted_mean"), per_sample.sum() / divisor)


def test_class_weight_multiplies_the_sample(batch: Batch, sample_weighted_loss: LossCase) -> None:
    scores, targets = batch()
    plain = sample_weighted_loss.make(COUNTS)(scores, targets, reduction="none")
    weighted = sample_weighted_loss.make(COUNTS, weight=WEIGHT)(scores, targets, reduction="none")
    torch.testing.assert_close(weighted, plain * torch.tensor(WEIGHT, dtype=torch.float64)[targets])


def test_unweighted_means_are_one(batch: Batch, weighted_loss: LossCase) -> None:
    scores, targets = batch()
    module = weighted_loss.make(COUNTS)
    torch.testing.assert_close(module(scores, targets, reduction="weighted_mean"), module(scores, targets))


def test_gradient_is_the_derivative(batch: Batch, differentiable_loss: LossCase) -> None:
    scores, targets = batch()
    module = differentiable_loss.make(COUNTS)
    assert torch.autograd.gradcheck(lambda z: module(z, targets, reduction="none"), scores.requires_grad_())


def test_gradient_of_views_is_the_derivative(unit_views: Batch, view_loss: LossCase) -> None:
    views, targets = unit_views()
    module = view_loss.make()
    assert torch.autograd.gradcheck(lambda v: module(v, targets, reduction="none"), views.requires_grad_())


def test_order_of_the_batch_does_not_matter(batch: Batch, gradient: Gradient, logit_loss: LossCase) -> None:
    scores, targets = batch()
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    module = logit_loss.make(COUNTS)
    loss, grad = gradient(module, scores, targets)
    shuffled_loss, shuffled_grad = gradient(module, scores[order], targets[order])
    torch.testing.assert_close(shuffled_loss, loss)
    torch.testing.assert_close(shuffled_grad, grad[order])


def test_names_of_the_classes_do_not_matter(batch: Batch, gradient: Gradient, logit_loss: LossCase) -> None:
    scores, targets = batch()
    order = torch.tensor([4, 2, 0, 1, 3])  # new class i is old class order[i]
    loss, grad = gradient(logit_loss.make(COUNTS), scores, targets)
    renamed = logit_loss.make([COUNTS[i] for i in order])
    renamed_loss, renamed_grad = gradient(renamed, scores[:, order], order.argsort()[targets])
    torch.testing.assert_close(renamed_loss, loss)
    torch.testing.assert_close(renamed_grad, grad[:, order])


def test_order_of_samples_and_views_does_not_matter(unit_views: Batch, view_loss: LossCase) -> None:
    views, targets = unit_views(n_views=3)
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    module = view_loss.make()
    per_sample = module(views, targets, reduction="none")
    torch.testing.assert_close(module(views[order], targets[order], reduction="none"), per_sample[order])
    swapped = views[:, [0, 2, 1]] if view_loss.name == "SupConLoss one" else views[:, [2, 0, 1]]
    torch.testing.assert_close(module(swapped, targets, reduction="none"), per_sample)
