"""Name → function that builds a Method; the only file that sees every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipelines import composed_recipes, loss_recipes, own_recipes
from pipelines.composition import Problem
from pipelines.options import options_of, read_options
from rebalance.errors import InputError, nearest
from rebalance.methods.base import Method

RECIPES: dict[str, Callable[..., Method]] = {
    "ce": loss_recipes.ce,
    "ce_drw": loss_recipes.ce_drw,
    "weighted_ce": loss_recipes.weighted_ce,
    "focal": loss_recipes.focal,
    "cb_softmax": loss_recipes.cb_softmax,
    "cb_sigmoid": loss_recipes.cb_sigmoid,
    "cb_focal": loss_recipes.cb_focal,
    "balanced_softmax": loss_recipes.balanced_softmax,
    "balanced_mixup": composed_recipes.balanced_mixup,
    "logit_adjustment": loss_recipes.logit_adjustment,
    "ldam": loss_recipes.ldam,
    "ldam_drw": loss_recipes.ldam_drw,
    "mixup_drw": composed_recipes.mixup_drw,
    "remix_drw": composed_recipes.remix_drw,
    "arcface": loss_recipes.arcface,
    "cosface": loss_recipes.cosface,
    "am_softmax": loss_recipes.am_softmax,
    "sphereface": loss_recipes.sphereface,
    "supcon": composed_recipes.supcon,
    "rsg": composed_recipes.rsg,
    "paco": own_recipes.paco,
    "gpaco": own_recipes.gpaco,
    "bcl": own_recipes.bcl,
    "reslt": own_recipes.reslt,
    "autoencoder": own_recipes.autoencoder,
    "composed": composed_recipes.composed,
}

TAKES: dict[str, tuple[str, ...]] = {
    "supcon": ("weighting", "head", "scale", "mix", "rare"),
    "paco": (),
    "gpaco": (),
    "bcl": (),
    "reslt": (),
    "autoencoder": ("losses", "weighting", "head", "scale"),
}
"""Recipe → the fields of `Switches` that it takes; recipes that are not here take all."""


def recipe_options(name: str) -> dict[str, Any]:
    """The options of a recipe with their defaults.

    Raises:
        InputError: Unknown recipe.
    """
    if name not in RECIPES:
        raise InputError("a method", repr(name), nearest(name, RECIPES))
    return options_of(RECIPES[name])


def parse_options(name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Options of a recipe from text, checked by name and by the type of their default.

    Raises:
        InputError: Unknown recipe or option, or a value of another type.
    """
    return read_options(name, recipe_options(name), texts)


def build_method(name: str, problem: Problem, options: Mapping[str, Any]) -> Method:
    """The method of this name.

    Raises:
        InputError: Unknown recipe, a switch that it does not take, or an option out of range.
    """
    recipe_options(name)
    if name in TAKES:
        problem.switches.refuse(name, *TAKES[name])
    try:
        return RECIPES[name](problem, **options)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"valid options of {name}", str(error), f"see `rebalance methods {name}`") from error
