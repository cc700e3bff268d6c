"""What every classification, angular and contrastive loss takes, leaves alone and refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from rebalance import losses

COUNTS = [500, 120, 30, 8, 1]
C = len(COUNTS)
LossCase = Any
"""See the fixtures of losses: `name`, `make` and `takes_weight`."""
Batch = Callable[..., tuple[Tensor, Tensor]]
Gradient = Callable[..., tuple[Tensor, Tensor]]


def test_what_derives_from_counts_is_a_float64_buffer_that_is_not_saved(logit_loss: LossCase) -> None:
    module = logit_loss.make(COUNTS)
    assert not list(module.parameters())
    assert set(module.state_dict()) <= {"loss.iteration"}
    for key, buffer in module.named_buffers():
        assert buffer.dtype == (torch.int64 if key == "loss.iteration" else torch.float64)


@pytest.mark.parametrize("kind", ["list", "array", "int tensor", "float tensor"])
def test_counts_and_weights_may_be_any_sequence(batch: Batch, logit_loss: LossCase, kind: str) -> None:
    convert: Callable[[list[float]], object] = {
        "list": list,
        "array": lambda v: torch.tensor(v).numpy(),
        "int tensor": torch.tensor,
        "float tensor": lambda v: torch.tensor(v, dtype=torch.float64),
    }[kind]
    scores, targets = batch()
    counts = convert(COUNTS)
    weight = {"weight": convert([1, 2, 3, 4, 5])} if logit_loss.takes_weight else {}
    loss = logit_loss.make(counts, **weight)(scores, targets)
    reference = logit_loss.make(COUNTS, **{key: [1, 2, 3, 4, 5] for key in weight})(scores, targets)
    torch.testing.assert_close(loss, reference, rtol=0, atol=0)


def test_buffers_share_no_memory_with_what_they_were_made_of() -> None:
    weight = torch.ones(C, dtype=torch.float64)
    module = losses.CrossEntropyLoss(weight)
    weight[0] = 5.0
    assert module.weight is not None
    assert module.weight[0] == 1.0


def test_inputs_are_left_alone(batch: Batch, logit_loss: LossCase) -> None:
    scores, targets = batch()
    before = scores.clone(), targets.clone()
    logit_loss.make(COUNTS)(scores, targets)
    assert torch.equal(scores, before[0])
    assert torch.equal(targets, before[1])


def test_compiles_to_one_graph(batch: Batch, gradient: Gradient, logit_loss: LossCase) -> None:
    scores, targets = batch(dtype=torch.float32)
    module = logit_loss.make(COUNTS)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(gradient(compiled, scores, targets), gradient(module, scores, targets))


def test_wrong_input_is_refused_with_what_was_expected(batch: Batch, logit_loss: LossCase) -> None:
    scores, targets = batch()
    module = logit_loss.make(COUNTS)
    with pytest.raises(ValueError, match=r"expected logits of shape \(B, C\); got \(7, 5, 1\)"):
        module(scores[..., None], targets)
    with pytest.raises(ValueError, match=r"expected targets of shape \(7,\), .*; got \(6,\)"):
        module(scores, targets[:6])
    with pytest.raises(ValueError, match=r"expected int64 targets; got torch.int32; call targets.long\(\)"):
        module(scores, targets.int())
    with pytest.raises(ValueError, match="expected a reduction out of mean, weighted_mean, sum, none; got 'avg'"):
        module(scores, targets, reduction="avg")
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        module(scores, targets + 1)
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        module(scores, torch.full_like(targets, -100))


def test_weight_of_another_number_of_classes_is_refused(batch: Batch, weighted_loss: LossCase) -> None:
    scores, targets = batch()
    with pytest.raises(ValueError, match=r"expected weight of shape \(5,\), .*; got \(6,\)"):
        weighted_loss.make(COUNTS, weight=[1.0] * 6)(scores, targets)


@pytest.mark.parametrize(
    "name",
    [
        "BalancedSoftmaxLoss",
        "ClassBalancedFocalLoss",
        "ClassBalancedSigmoidLoss",
        "ClassBalancedSoftmaxLoss",
        "LDAMLoss",
        "LabelAwareSmoothingLoss",
        "LogitAdjustmentLoss",
        "PriorCELoss",
        "RegionRebalanceLoss",
    ],
)
def test_counts_of_another_number_of_classes_are_refused_by_their_own_name(batch: Batch, name: str) -> None:
    scores, targets = batch()
    with pytest.raises(ValueError, match=r"with 6 columns, one for each of the counts; got \(7, 5\); pass the counts"):
        getattr(losses, name)([*COUNTS, 1])(scores, targets)


@pytest.mark.parametrize("shape", [(2, 5), (2, 2, 5)])
def test_paco_refuses_counts_of_another_number_of_classes(shape: tuple[int, ...]) -> None:
    views = torch.nn.functional.normalize(torch.ones(2, 2, 8), dim=2)
    with pytest.raises(ValueError, match="with 6 columns, one for each of the counts; got"):
        losses.PaCoLoss([*COUNTS, 1])(torch.zeros(shape), views, torch.tensor([0, 1]))


@pytest.mark.parametrize("counts", [[], [5, -1], [5, float("nan")], [5, float("inf")]])
@pytest.mark.parametrize("name", ["BalancedSoftmaxLoss", "LDAMLoss", "ClassBalancedFocalLoss", "LogitAdjustmentLoss"])
def test_impossible_counts_are_refused(name: str, counts: list[float]) -> None:
    with pytest.raises(ValueError, match=r"expected .*counts"):
        getattr(losses, name)(counts)


def test_counts_by_name_are_refused_for_their_order_is_not_that_of_the_class_ids() -> None:
    with pytest.raises(ValueError, match="in the order of the class ids; got a Counter; pass for example"):
        losses.BalancedSoftmaxLoss(Counter(dog=5, cat=3))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["LDAMLoss", "ClassBalancedFocalLoss", "ClassBalancedSoftmaxLoss"])
def test_a_class_without_images_is_refused_where_its_weight_or_margin_is_undefined(name: str) -> None:
    with pytest.raises(ValueError, match="expected at least one image in every class; got 0 images of class 2"):
        getattr(losses, name)([5, 3, 0])


def test_a_series_is_taken_by_its_index() -> None:
    ids = pd.Series([2] * 10 + [0] * 40 + [1] * 90)
    by_frequency = ids.value_counts()  # 1, 0, 2
    torch.testing.assert_close(losses.ldam_margins(by_frequency), losses.ldam_margins([40, 90, 10]))
    weighted = losses.CrossEntropyLoss(weight=1 / by_frequency).weight
    torch.testing.assert_close(weighted, torch.tensor([1 / 40, 1 / 90, 1 / 10], dtype=torch.float64))


@pytest.mark.parametrize("index", [["cat", "dog", "owl"], [0, 1, 3]])
def test_a_series_of_other_classes_is_refused(index: list[object]) -> None:
    with pytest.raises(ValueError, match=r"expected counts as a Series by class id, 0 to 2; got the index .* pass for"):
        losses.LDAMLoss(pd.Series([3, 2, 1], index))


def test_shares_of_classes_are_answered_with_the_loss_of_mixed_images(batch: Batch, logit_loss: LossCase) -> None:
    scores, targets = batch()
    shares = torch.nn.functional.one_hot(targets, C).double()
    with pytest.raises(ValueError, match=r"got shares \(7, 5\); for mixed images .* rebalance.mixing.mixed_loss"):
        logit_loss.make(COUNTS)(scores, shares)


def test_print_shows_the_classes_and_every_option(logit_loss: LossCase) -> None:
    module = logit_loss.make(COUNTS)
    module = getattr(module, "loss", module)
    shown = repr(module)
    assert all(f"{name}=" in shown for name in vars(module) if not name.startswith("_") and name != "training")
    assert all(f"{name}: 5 classes, " in shown for name, buffer in module.named_buffers() if buffer.ndim)


def test_print_shows_the_options_of_contrastive_losses(view_loss: LossCase) -> None:
    assert "temperature=0.25" in repr(view_loss.make(temperature=0.25))


def test_print_shows_what_derives_from_the_counts() -> None:
    shown = "LDAMLoss(margins: 2 classes, 0.25 to 0.5, weight: 2 classes, 1 to 3, scale=30.0, prescaled=False)"
    assert repr(losses.LDAMLoss([160, 10], weight=[1, 3])) == shown
    assert repr(losses.LDAMLoss([160, 10]).to("meta")) == "LDAMLoss(margins: (2,), scale=30.0, prescaled=False)"
    assert "groups: (3, 2)" in repr(losses.ResidualLoss(losses.branch_groups([9, 1])))
