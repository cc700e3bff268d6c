"""Name → function that builds a Method; the only file that sees every method.

A recipe's keyword arguments are its options, `-o name=value` on the command line. Most describe a composition, whose
parts `--loss`, `--head`, `--loss-rule`, `--mix` and `--rsg` replace.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from pipelines.composition import Composition, MixSpec, Problem, RareSpec
from pipelines.loss_terms import LossSpec
from rebalance.errors import InputError, nearest
from rebalance.methods.base import Method
from rebalance.schedules import Schedule


def ce(problem: Problem) -> Method:
    """Plain cross entropy: the baseline."""
    return problem.compose(Composition((LossSpec("ce"),)))


def ce_drw(problem: Problem, *, cb_beta: float = 0.9999, defer_until: float = 0.8) -> Method:
    """Cross entropy with deferred re-weighting by effective number (Cao et al., NeurIPS 2019)."""
    return problem.compose(Composition((LossSpec("ce"),), _drw(cb_beta, defer_until)))


def weighted_ce(problem: Problem, *, rule: str = "inverse", strength: float = 1.0) -> Method:
    """Cross entropy with class weights; --loss-rule adds them to any method."""
    return problem.compose(Composition((LossSpec("ce"),), {"rule": rule, "strength": strength}))


def focal(problem: Problem, *, gamma: float = 2.0) -> Method:
    """Focal loss, softmax form (Lin et al., ICCV 2017): easy images count less."""
    return problem.compose(Composition((LossSpec("focal", 1.0, {"gamma": gamma}),)))


def cb_softmax(problem: Problem, *, cb_beta: float = 0.9999) -> Method:
    """Class-balanced cross entropy (Cui et al., CVPR 2019): weights by effective number."""
    return problem.compose(Composition((LossSpec("ce"),), _effective(cb_beta)))


def cb_sigmoid(problem: Problem, *, cb_beta: float = 0.9999) -> Method:
    """Class-balanced sigmoid cross entropy, one against the rest (Cui et al., CVPR 2019)."""
    return problem.compose(Composition((LossSpec("sigmoid"),), _effective(cb_beta)))


def cb_focal(problem: Problem, *, cb_beta: float = 0.9999, gamma: float = 1.0) -> Method:
    """Class-balanced focal loss, sigmoid form (Cui et al., CVPR 2019)."""
    return problem.compose(Composition((LossSpec("focal_sigmoid", 1.0, {"gamma": gamma}),), _effective(cb_beta)))


def balanced_softmax(problem: Problem) -> Method:
    """Balanced softmax (Ren et al., NeurIPS 2020): the class prior inside the softmax while training."""
    return problem.compose(Composition((LossSpec("balanced_softmax"),)))


def logit_adjustment(problem: Problem, *, tau: float = 1.0) -> Method:
    """Logit adjustment (Menon et al., ICLR 2021): the prior to the power tau; tau = 1 is balanced softmax."""
    return problem.compose(Composition((LossSpec("logit_adjustment", 1.0, {"tau": tau}),)))


def ldam(problem: Problem, *, max_margin: float = 0.5, scale: float = 30.0) -> Method:
    """LDAM (Cao et al., NeurIPS 2019): larger margins for rarer classes, on a cosine head."""
    return problem.compose(Composition((_ldam(max_margin, scale),)))


def ldam_drw(
    problem: Problem,
    *,
    max_margin: float = 0.5,
    scale: float = 30.0,
    cb_beta: float = 0.9999,
    defer_until: float = 0.8,
) -> Method:
    """LDAM with deferred re-weighting (Cao et al., NeurIPS 2019) by effective number in the last fifth of training."""
    return problem.compose(Composition((_ldam(max_margin, scale),), _drw(cb_beta, defer_until)))


def mixup_drw(
    problem: Problem, *, alpha: float = 1.0, cb_beta: float = 0.9999, defer_until: float = 0.8, until: float = 1.0
) -> Method:
    """Mixup (Zhang et al., ICLR 2018) with deferred re-weighting, as in imbalanced-DL."""
    mix = MixSpec("mixup", alpha, until=until)
    return problem.compose(Composition((LossSpec("ce"),), _drw(cb_beta, defer_until), mix=mix))


def remix_drw(
    problem: Problem, *, alpha: float = 1.0, cb_beta: float = 0.9999, defer_until: float = 0.8, until: float = 1.0
) -> Method:
    """Remix (Chou et al., ECCV Workshops 2020), whose label leans to the rarer class, with deferred re-weighting."""
    mix = MixSpec("remix", alpha, until=until)
    return problem.compose(Composition((LossSpec("ce"),), _drw(cb_beta, defer_until), mix=mix))


def arcface(problem: Problem, *, margin_rad: float = 0.5, scale: float = 30.0) -> Method:
    """ArcFace (Deng et al., CVPR 2019): an additive margin on the angle. The paper's scale is 64."""
    return problem.compose(Composition((LossSpec("arcface", 1.0, {"margin_rad": margin_rad, "scale": scale}),)))


def cosface(problem: Problem, *, margin: float = 0.35, scale: float = 30.0) -> Method:
    """CosFace (Wang et al., CVPR 2018), the same as AM-Softmax: an additive margin on the cosine."""
    return problem.compose(Composition((LossSpec("cosface", 1.0, {"margin": margin, "scale": scale}),)))


def am_softmax(problem: Problem, *, margin: float = 0.35, scale: float = 30.0) -> Method:
    """AM-Softmax (Wang et al., 2018), the same as CosFace."""
    return problem.compose(Composition((LossSpec("am_softmax", 1.0, {"margin": margin, "scale": scale}),)))


def sphereface(problem: Problem, *, margin: int = 4, annealed: bool = True) -> Method:
    """SphereFace (Liu et al., CVPR 2017): a multiplicative margin on the angle, annealed as in the authors' code."""
    return problem.compose(Composition((LossSpec("sphereface", 1.0, {"margin": margin, "annealed": annealed}),)))


def supcon(
    problem: Problem, *, loss: str = "ce", share: float = 0.5, temperature: float = 0.1, projection: int = 128
) -> Method:
    """SupCon (Khosla et al., NeurIPS 2020) beside a classification loss: (1 - share) · loss + share · SupCon.

    share = 1 is pre-training: then `rebalance retrain RUN --method linear` gives it a classifier.
    """
    if not 0 < share <= 1:
        raise InputError("share in (0, 1]", repr(share), "1 is SupCon alone")
    contrastive = LossSpec("supcon", share, {"temperature": temperature, "base_temperature": temperature})
    classification = () if share == 1 else (LossSpec(loss, 1 - share),)
    return problem.compose(Composition((*classification, contrastive), projection=projection))


def rsg(
    problem: Problem,
    *,
    loss: str = "ldam",
    start: float = 0.8,
    stage: int = 0,
    n_centers: int = 15,
    strength: float = 1.0,
    head_share: float = 0.2,
    layout: str = "official",
    cb_beta: float = 0.9999,
    defer_until: float = 0.8,
) -> Method:
    """The rare-sample generator (Wang et al., CVPR 2021): new tail features inside the network; by default LDAM-DRW.

    stage = 0 means before the backbone's last stage.
    """
    options = {"n_centers": n_centers, "strength": strength, "head_share": head_share, "layout": layout}
    rare = RareSpec(start, stage or None, options)
    return problem.compose(Composition((LossSpec(loss),), _drw(cb_beta, defer_until), rare=rare))


def composed(problem: Problem) -> Method:
    """Whatever --loss, --head, --loss-rule, --mix and --rsg say; no parts of its own."""
    if problem.switches.losses is None:
        raise InputError("--loss for the method composed", "none", "name at least one, such as --loss ce")
    return problem.compose(Composition(()))


RECIPES: dict[str, Callable[..., Method]] = {
    "ce": ce,
    "ce_drw": ce_drw,
    "weighted_ce": weighted_ce,
    "focal": focal,
    "cb_softmax": cb_softmax,
    "cb_sigmoid": cb_sigmoid,
    "cb_focal": cb_focal,
    "balanced_softmax": balanced_softmax,
    "logit_adjustment": logit_adjustment,
    "ldam": ldam,
    "ldam_drw": ldam_drw,
    "mixup_drw": mixup_drw,
    "remix_drw": remix_drw,
    "arcface": arcface,
    "cosface": cosface,
    "am_softmax": am_softmax,
    "sphereface": sphereface,
    "supcon": supcon,
    "rsg": rsg,
    "composed": composed,
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
        InputError: Unknown recipe, or an option out of range.
    """
    recipe_options(name)
    try:
        return RECIPES[name](problem, **options)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"valid options of {name}", str(error), f"see `rebalance methods {name}`") from error


def _effective(cb_beta: float) -> dict[str, Any]:
    return {"rule": "effective-number", "cb_beta": cb_beta}


def _drw(cb_beta: float, defer_until: float) -> dict[str, Any]:
    if not 0 <= defer_until <= 1:
        raise InputError("defer_until in [0, 1]", repr(defer_until), "use 0.8, the paper's")
    return {**_effective(cb_beta), "schedule": Schedule("deferred", defer_until)}


def _ldam(max_margin: float, scale: float) -> LossSpec:
    return LossSpec("ldam", 1.0, {"max_margin": max_margin, "scale": scale})


def _parse_value(name: str, text: str, default: Any) -> Any:
    value = text if isinstance(default, str) else yaml.safe_load(text)
    if isinstance(default, float):
        valid = isinstance(value, int | float) and not isinstance(value, bool)
        value = float(value) if valid else value
    else:
        valid = type(value) is type(default)
    if not valid:
        raise InputError(f"{name}={type(default).__name__}", f"{name}={text}", f"its default is {default!r}")
    return value
