"""Losses by name: what each takes, its options, and `NAME:SHARE:OPTION=VALUE` on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from pipelines.options import read_value
from rebalance.counts import FloatArray
from rebalance.errors import InputError, nearest
from rebalance.losses import (
    ArcFaceLoss,
    BalancedSoftmaxLoss,
    CosFaceLoss,
    CrossEntropyLoss,
    FocalSigmoidLoss,
    FocalSoftmaxLoss,
    LabelAwareSmoothingLoss,
    LDAMLoss,
    LogitAdjustmentLoss,
    SigmoidCrossEntropyLoss,
    SimCLRLoss,
    SphereFaceLoss,
    SupConLoss,
)
from rebalance.methods.composed import LossTerm, Takes


class LossMaker(NamedTuple):
    """How a loss is built from the counts and its options, and what it takes."""

    make: Callable[..., nn.Module]
    takes: Takes
    needs_counts: bool = False


LOSSES: dict[str, LossMaker] = {
    "ce": LossMaker(CrossEntropyLoss, "logits"),
    "focal": LossMaker(FocalSoftmaxLoss, "logits"),
    "sigmoid": LossMaker(SigmoidCrossEntropyLoss, "logits"),
    "focal_sigmoid": LossMaker(FocalSigmoidLoss, "logits"),
    "balanced_softmax": LossMaker(BalancedSoftmaxLoss, "logits", needs_counts=True),
    "logit_adjustment": LossMaker(LogitAdjustmentLoss, "logits", needs_counts=True),
    "label_aware_smoothing": LossMaker(LabelAwareSmoothingLoss, "logits", needs_counts=True),
    "ldam": LossMaker(LDAMLoss, "cosines", needs_counts=True),
    "arcface": LossMaker(ArcFaceLoss, "cosines"),
    "cosface": LossMaker(CosFaceLoss, "cosines"),
    "am_softmax": LossMaker(CosFaceLoss, "cosines"),
    "sphereface": LossMaker(SphereFaceLoss, "cosines and norms"),
    "supcon": LossMaker(SupConLoss, "views"),
    "simclr": LossMaker(SimCLRLoss, "views"),
}
SIGMOID_LOSSES = ("sigmoid", "focal_sigmoid")
_NOT_OPTIONS = ("counts", "weight", "prescaled", "weight_in_modulator")
"""What a composition has another way of: it weighs the losses (B,) of every term itself."""


@dataclass(frozen=True)
class LossSpec:
    """A loss by name, its share and its options."""

    name: str
    share: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)


def check_loss(name: str) -> None:
    """Refuse a loss that there is none of.

    Raises:
        InputError: Unknown name.
    """
    if name not in LOSSES:
        raise InputError("a loss", repr(name), nearest(name, LOSSES))


def loss_term(spec: LossSpec, counts: FloatArray) -> LossTerm:
    """The term of a loss by name, for classes of these counts.

    Raises:
        InputError: Unknown loss or option, or an option out of range.
    """
    check_loss(spec.name)
    maker = LOSSES[spec.name]
    valid = loss_options(spec.name)
    for option in spec.options:
        if option not in valid:
            raise InputError(f"an option of the loss {spec.name}", repr(option), nearest(option, valid))
    data = (torch.from_numpy(counts.copy()),) if maker.needs_counts else ()
    try:
        loss = maker.make(*data, **spec.options)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"valid options of the loss {spec.name}", str(error), f"its options are {', '.join(valid) or 'none'}"
        ) from error
    return LossTerm(spec.name, loss, spec.share, maker.takes)


def loss_options(name: str) -> dict[str, Any]:
    """The options of a loss with their defaults."""
    parameters = inspect.signature(LOSSES[name].make).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in _NOT_OPTIONS}


def parse_loss(text: str) -> LossSpec:
    """A loss from text: "ldam", "ldam:0.1", "ldam:0.1:max_margin=0.4".

    Raises:
        InputError: A share that is no number, or an option without a value or with one of another type.
    """
    name, *rest = text.split(":")
    share = 1.0
    if rest and "=" not in rest[0]:
        try:
            share = float(rest.pop(0))
        except ValueError as error:
            raise InputError("--loss NAME:SHARE with a number", repr(text), "write for example ldam:0.1") from error
    name = name.replace("-", "_")
    defaults = loss_options(name) if name in LOSSES else {}
    options: dict[str, Any] = {}
    for part in rest:
        key, separator, value = part.partition("=")
        if not separator:
            raise InputError("--loss NAME:SHARE:OPTION=VALUE", repr(text), "write for example ldam:0.1:max_margin=0.4")
        key = key.replace("-", "_")
        options[key] = read_value(key, value, defaults[key]) if key in defaults else value  # refused when it is built
    return LossSpec(name, share, options)
