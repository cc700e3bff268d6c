"""Numbers that a loss cannot work with are refused where it is built, and by the function where it takes them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from rebalance import losses

COUNTS = [100, 10, 1]
SCORES, VIEWS, TARGETS = torch.zeros(2, 3), torch.eye(3)[:2, None], torch.tensor([0, 0])
GROUPS = torch.ones(1, 3, dtype=torch.bool)
NOT_NEGATIVE = (-1.0, math.nan, math.inf)
POSITIVE = (0.0, *NOT_NEGATIVE)


def cases() -> list[tuple[str, Callable[[float], object], tuple[float, ...]]]:
    margins = losses.ldam_margins(COUNTS)
    return [
        ("gamma", lambda x: losses.FocalSoftmaxLoss(gamma=x), NOT_NEGATIVE),
        ("gamma", lambda x: losses.focal_sigmoid_loss(SCORES, TARGETS, gamma=x), NOT_NEGATIVE),
        ("max_margin", lambda x: losses.LDAMLoss(COUNTS, max_margin=x), NOT_NEGATIVE),
        ("max_margin", lambda x: losses.ldam_margins(COUNTS, max_margin=x), NOT_NEGATIVE),
        ("scale", lambda x: losses.LDAMLoss(COUNTS, scale=x), POSITIVE),
        ("scale", lambda x: losses.ldam_loss(SCORES, TARGETS, margins, scale=x), POSITIVE),
        ("margin", lambda x: losses.CosFaceLoss(margin=x), NOT_NEGATIVE),
        ("margin", lambda x: losses.cosface_loss(SCORES, TARGETS, margin=x), NOT_NEGATIVE),
        ("scale", lambda x: losses.cosface_loss(SCORES, TARGETS, scale=x), POSITIVE),
        ("scale", lambda x: losses.arcface_loss(SCORES, TARGETS, scale=x), POSITIVE),
        ("annealing", lambda x: losses.sphereface_loss(SCORES, TARGETS, torch.ones(2), annealing=x), NOT_NEGATIVE),
        ("scale", lambda x: losses.sphereface_loss(SCORES, TARGETS, torch.ones(2), scale=x), POSITIVE),
        ("base", lambda x: losses.SphereFaceLoss(base=x), NOT_NEGATIVE),
        ("gamma", lambda x: losses.SphereFaceLoss(gamma=x), NOT_NEGATIVE),
        ("power", lambda x: losses.SphereFaceLoss(power=x), NOT_NEGATIVE),
        ("minimum", lambda x: losses.SphereFaceLoss(minimum=x), NOT_NEGATIVE),
        ("tau", lambda x: losses.LogitAdjustmentLoss(COUNTS, tau=x), NOT_NEGATIVE),
        ("tau", lambda x: losses.adjust_logits(SCORES, COUNTS, tau=x), NOT_NEGATIVE),
        ("eps", lambda x: losses.LogitAdjustmentLoss(COUNTS, eps=x), NOT_NEGATIVE),
        ("eps", lambda x: losses.PriorCELoss(COUNTS, eps=x), NOT_NEGATIVE),
        ("eps", lambda x: losses.ResidualLoss(GROUPS, eps=x), NOT_NEGATIVE),
        ("fused_eps", lambda x: losses.ResidualLoss(GROUPS, fused_eps=x), NOT_NEGATIVE),
        ("alpha", lambda x: losses.residual_loss(SCORES[:, None], TARGETS, GROUPS, alpha=x), (-0.1, 1.1, math.nan)),
        ("eps", lambda x: losses.residual_loss(SCORES[:, None], TARGETS, GROUPS, eps=x), NOT_NEGATIVE),
        ("fused_eps", lambda x: losses.residual_loss(SCORES[:, None], TARGETS, GROUPS, fused_eps=x), NOT_NEGATIVE),
        (
            "label_smoothing",
            lambda x: losses.residual_loss(SCORES[:, None], TARGETS, GROUPS, label_smoothing=x),
            (-0.1, 1.1, math.nan),
        ),
        ("label_smoothing", lambda x: losses.RegionRebalanceLoss(COUNTS, label_smoothing=x), (-0.1, 1.1, math.nan)),
        ("a temperature", lambda x: losses.SupConLoss(temperature=x), POSITIVE),
        ("a base temperature", lambda x: losses.SupConLoss(base_temperature=x), POSITIVE),
        ("a temperature", lambda x: losses.SupConPMLLoss(temperature=x), POSITIVE),
        ("a temperature", lambda x: losses.supcon_pml_loss(VIEWS, TARGETS, temperature=x), POSITIVE),
    ]


@pytest.mark.parametrize(("name", "make", "refused"), cases(), ids=lambda value: value if type(value) is str else "")
def test_numbers_out_of_range_are_refused_and_the_ends_of_the_range_are_not(
    name: str, make: Callable[[float], object], refused: tuple[float, ...]
) -> None:
    for value in refused:
        with pytest.raises(ValueError, match=rf"expected {name} .*; got {value!r}"):
            make(value)
    make(1e-3)
    make(1.0)
    if 0.0 not in refused:
        make(0.0)


def test_an_annealing_in_a_tensor_is_not_read() -> None:
    losses.sphereface_loss(SCORES, TARGETS, torch.ones(2), annealing=torch.tensor(3.0))
