"""Name → function that builds a Method; the only file that sees every method.

A recipe's keyword arguments are its options, `-o name=value` on the command line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rebalance.backbones import Backbone
from rebalance.classifier import Classifier
from rebalance.counts import FloatArray
from rebalance.errors import InputError, nearest
from rebalance.losses import (
    BalancedSoftmaxLoss,
    CrossEntropyLoss,
    FocalSoftmaxLoss,
    LDAMLoss,
    LogitAdjustmentLoss,
)
from rebalance.methods.base import Method
from rebalance.methods.composed import ComposedMethod, LossTerm
from rebalance.methods.weighting import ClassWeighting
from rebalance.schedules import Schedule


@dataclass(frozen=True)
class Problem:
    """What a recipe is built for.

    Args:
        backbone: The network.
        counts: Effective training images of each class, for priors and margins, (C,).
        shares: Share of each class among the drawn images, (C,).
        classes: Class names.
        weighting: The user's own class weights, in place of the recipe's.
    """

    backbone: Backbone
    counts: FloatArray
    shares: FloatArray
    classes: tuple[str, ...]
    weighting: Mapping[str, Any] | None = None

    def weights(self, rule: str = "none", **options: Any) -> ClassWeighting:
        """The class weights of the recipe, or the user's where there are any."""
        chosen = dict(self.weighting) if self.weighting is not None else {"rule": rule, **options}
        return ClassWeighting(self.counts, shares=self.shares, classes=self.classes, **chosen)

    def compose(
        self, terms: list[LossTerm], weighting: ClassWeighting, *, head: str = "linear", scale: float = 1.0
    ) -> Method:
        """A composition over a new head."""
        classifier = Classifier(self.backbone, len(self.classes), head=head, scale=scale)
        return ComposedMethod(classifier, terms, weighting)


def ce(problem: Problem) -> Method:
    """Plain cross entropy: the baseline."""
    return problem.compose([LossTerm("ce", CrossEntropyLoss())], problem.weights())


def weighted_ce(problem: Problem, *, rule: str = "inverse", strength: float = 1.0) -> Method:
    """Cross entropy with class weights; see also --loss-rule, which adds them to any method."""
    return problem.compose([LossTerm("ce", CrossEntropyLoss())], problem.weights(rule, strength=strength))


def focal(problem: Problem, *, gamma: float = 2.0) -> Method:
    """Focal loss, softmax form (Lin et al., ICCV 2017): easy images count less."""
    return problem.compose([LossTerm("focal", FocalSoftmaxLoss(gamma=gamma))], problem.weights())


def balanced_softmax(problem: Problem) -> Method:
    """Balanced softmax (Ren et al., NeurIPS 2020): the class prior inside the softmax while training."""
    return problem.compose([LossTerm("balanced_softmax", BalancedSoftmaxLoss(problem.counts))], problem.weights())


def logit_adjustment(problem: Problem, *, tau: float = 1.0) -> Method:
    """Logit adjustment (Menon et al., ICLR 2021): the prior to the power tau; tau = 1 is balanced softmax."""
    loss = LogitAdjustmentLoss(problem.counts, tau=tau)
    return problem.compose([LossTerm("logit_adjustment", loss)], problem.weights())


def ldam(problem: Problem, *, max_margin: float = 0.5, scale: float = 30.0) -> Method:
    """LDAM (Cao et al., NeurIPS 2019): larger margins for rarer classes, on a cosine head."""
    return _ldam(problem, problem.weights(), max_margin, scale)


def ldam_drw(
    problem: Problem,
    *,
    max_margin: float = 0.5,
    scale: float = 30.0,
    cb_beta: float = 0.9999,
    defer_until: float = 0.8,
) -> Method:
    """LDAM with deferred re-weighting (Cao et al., NeurIPS 2019) by effective number in the last fifth of training."""
    schedule = Schedule("deferred", defer_until)
    return _ldam(problem, problem.weights("effective-number", cb_beta=cb_beta, schedule=schedule), max_margin, scale)


def _ldam(problem: Problem, weighting: ClassWeighting, max_margin: float, scale: float) -> Method:
    loss = LDAMLoss(problem.counts, max_margin=max_margin, scale=scale)
    return problem.compose([LossTerm("ldam", loss, takes="cosines")], weighting, head="cosine", scale=scale)


RECIPES: dict[str, Callable[..., Method]] = {
    "ce": ce,
    "weighted_ce": weighted_ce,
    "focal": focal,
    "balanced_softmax": balanced_softmax,
    "logit_adjustment": logit_adjustment,
    "ldam": ldam,
    "ldam_drw": ldam_drw,
}


def recipe_options(name: str) -> dict[str, Any]:
    """The options of a recipe with their defaults.

    Raises:
        InputError: Unknown recipe.
    """
    if name not in RECIPES:
        raise InputError("a method", repr(name), nearest(name, RECIPES))
    parameters = inspect.signature(RECIPES[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def parse_options(name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Options of a recipe from text, checked by name and by the type of their default.

    Raises:
        InputError: Unknown recipe or option, or a value of another type.
    """
    defaults = recipe_options(name)
    options: dict[str, Any] = {}
    for key, text in texts.items():
        option = key.replace("-", "_")
        if option not in defaults:
            if not defaults:
                raise InputError(f"no options: {name} has none", repr(key), f"leave out -o {key}=…")
            raise InputError(f"an option of {name}", repr(key), nearest(option, defaults))
        options[option] = _parse_value(option, text, defaults[option])
    return options


def build_method(name: str, problem: Problem, options: Mapping[str, Any]) -> Method:
    """The method of this name.

    Raises:
        InputError: Unknown recipe or option, or an option out of range.
    """
    defaults = recipe_options(name)
    for option in options:
        if option not in defaults:
            raise InputError(f"an option of {name}", repr(option), nearest(option, defaults))
    try:
        return RECIPES[name](problem, **options)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"valid options of {name}", str(error), f"see `rebalance methods {name}`") from error


def _parse_value(name: str, text: str, default: Any) -> Any:
    value = text if isinstance(default, str) else yaml.safe_load(text)
    if isinstance(default, bool):
        valid = isinstance(value, bool)
    elif isinstance(default, float):
        valid = isinstance(value, int | float) and not isinstance(value, bool)
        value = float(value) if valid else value
    else:
        valid = isinstance(value, type(default)) or default is None
    if not valid:
        kind = type(default).__name__
        raise InputError(f"{name}={kind}", f"{name}={text}", f"its default is {default!r}")
    return value
