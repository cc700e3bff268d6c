"""Recipes of one loss, with class weights, priors or margins; `--loss`, `--head`, … replace their parts.

The keyword arguments are the recipe's options, `-o name=value` on the command line.
"""

from __future__ import annotations

from typing import Any

from pipelines.composition import Composition, Problem
from pipelines.loss_terms import LossSpec
from rebalance.errors import InputError
from rebalance.methods.base import Method
from rebalance.schedules import Schedule


def ce(problem: Problem) -> Method:
    """Plain cross entropy: the baseline.

    When: to compare with, or where the classes to come are as unequal as those of the training.
    """
    return problem.compose(Composition((LossSpec("ce"),)))


def ce_drw(problem: Problem, *, cb_beta: float = 0.9999, defer_until: float = 0.8) -> Method:
    """Cross entropy with deferred re-weighting by effective number.

    Paper: Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019.
    When: class weights are wanted and training is long enough to learn features before they act.

    Args:
        problem: What it is built for.
        cb_beta: β of the effective number; 0 leaves the classes alike, towards 1 they weigh by inverse frequency.
        defer_until: Share of training before the weights act.
    """
    return problem.compose(Composition((LossSpec("ce"),), drw(cb_beta, defer_until)))


def weighted_ce(problem: Problem, *, rule: str = "inverse", strength: float = 1.0) -> Method:
    """Cross entropy with class weights from the first update on; --loss-rule adds them to any method.

    When: the imbalance is mild; beyond 1 : 10 prefer balanced_softmax, or weights that are deferred.

    Args:
        problem: What it is built for.
        rule: inverse, sqrt-inverse or effective-number; weights of your own come with --loss-rule custom.
        strength: Exponent of the rule.
    """
    if rule == "custom":
        raise InputError(
            "a rule that needs counts alone", "custom", "use --loss-rule custom with --class-weight NAME=WEIGHT"
        )
    return problem.compose(Composition((LossSpec("ce"),), {"rule": rule, "strength": strength}))


def focal(problem: Problem, *, gamma: float = 2.0) -> Method:
    """Focal loss, softmax form: easy images count less.

    Paper: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    When: easy images abound in every class; it does not re-balance classes, so add --loss-rule or a sampler rule.

    Args:
        problem: What it is built for.
        gamma: How much less; 0 is cross entropy.
    """
    return problem.compose(Composition((LossSpec("focal", 1.0, {"gamma": gamma}),)))


def cb_softmax(problem: Problem, *, cb_beta: float = 0.9999) -> Method:
    """Class-balanced cross entropy: weights by effective number.

    Paper: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019.
    When: as weighted_ce, where inverse frequency is too strong.

    Args:
        problem: What it is built for.
        cb_beta: β of the effective number.
    """
    return problem.compose(Composition((LossSpec("ce"),), _effective(cb_beta)))


def cb_sigmoid(problem: Problem, *, cb_beta: float = 0.9999) -> Method:
    """Class-balanced sigmoid cross entropy, one class against the rest.

    Paper: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019.
    When: scores of single classes matter more than their order, such as where an image may be none of them.

    Args:
        problem: What it is built for.
        cb_beta: β of the effective number.
    """
    return problem.compose(Composition((LossSpec("sigmoid"),), _effective(cb_beta)))


def cb_focal(problem: Problem, *, cb_beta: float = 0.9999, gamma: float = 1.0) -> Method:
    """Class-balanced focal loss, sigmoid form.

    Paper: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019.
    When: as cb_sigmoid, with many easy images.

    Args:
        problem: What it is built for.
        cb_beta: β of the effective number.
        gamma: How much less easy images count.
    """
    return problem.compose(Composition((LossSpec("focal_sigmoid", 1.0, {"gamma": gamma}),), _effective(cb_beta)))


def balanced_softmax(problem: Problem) -> Method:
    """Balanced softmax: the class prior inside the softmax while training.

    Paper: Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS 2020.
    When: first of all; it has nothing to tune, costs nothing, and is the base of stronger methods.
    """
    return problem.compose(Composition((LossSpec("balanced_softmax"),)))


def logit_adjustment(problem: Problem, *, tau: float = 1.0) -> Method:
    """Logit adjustment: the class prior to the power tau inside the softmax; tau = 1 is balanced softmax.

    Paper: Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021.
    When: balanced softmax does too much or too little; for a trained model, `rebalance retrain` adjusts afterwards.

    Args:
        problem: What it is built for.
        tau: Strength of the prior.
    """
    return problem.compose(Composition((LossSpec("logit_adjustment", 1.0, {"tau": tau}),)))


def ldam(problem: Problem, *, max_margin: float = 0.5, scale: float = 30.0) -> Method:
    """LDAM: larger margins for rarer classes, on a cosine head.

    Paper: Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019.
    When: re-weighting hurts; otherwise ldam_drw is better.

    Args:
        problem: What it is built for.
        max_margin: Margin of the rarest class: 0.5 on CIFAR-LT, 0.3 on ImageNet-LT, 0.1 on iNaturalist.
        scale: From cosines to logits.
    """
    return problem.compose(Composition((_ldam(max_margin, scale),)))


def ldam_drw(
    problem: Problem,
    *,
    max_margin: float = 0.5,
    scale: float = 30.0,
    cb_beta: float = 0.9999,
    defer_until: float = 0.8,
) -> Method:
    """LDAM with deferred re-weighting by effective number in the last fifth of training.

    Paper: Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019.
    When: the rarest classes have a handful of images; long trainings with --sched step, as in the paper.

    Args:
        problem: What it is built for.
        max_margin: Margin of the rarest class: 0.5 on CIFAR-LT, 0.3 on ImageNet-LT, 0.1 on iNaturalist.
        scale: From cosines to logits.
        cb_beta: β of the effective number.
        defer_until: Share of training before the weights act.
    """
    return problem.compose(Composition((_ldam(max_margin, scale),), drw(cb_beta, defer_until)))


def arcface(problem: Problem, *, margin_rad: float = 0.5, scale: float = 30.0) -> Method:
    """ArcFace: an additive margin on the angle to the class vector.

    Paper: Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019.
    When: the features are to be compared with one another; it does not re-balance, so add --loss-rule or a sampler.

    Args:
        problem: What it is built for.
        margin_rad: Margin, in radians.
        scale: From cosines to logits; 64 in the paper.
    """
    return problem.compose(Composition((LossSpec("arcface", 1.0, {"margin_rad": margin_rad, "scale": scale}),)))


def cosface(problem: Problem, *, margin: float = 0.35, scale: float = 30.0) -> Method:
    """CosFace, the same as AM-Softmax: an additive margin on the cosine.

    Paper: Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018.
    When: as arcface; it is the easier of the two to train.

    Args:
        problem: What it is built for.
        margin: Margin, on the cosine.
        scale: From cosines to logits; 64 in the paper.
    """
    return problem.compose(Composition((LossSpec("cosface", 1.0, {"margin": margin, "scale": scale}),)))


def am_softmax(problem: Problem, *, margin: float = 0.35, scale: float = 30.0) -> Method:
    """AM-Softmax, the same as CosFace.

    Paper: Wang et al., Additive Margin Softmax for Face Verification, IEEE Signal Processing Letters 2018.
    When: as cosface, under its other name.

    Args:
        problem: What it is built for.
        margin: Margin, on the cosine.
        scale: From cosines to logits.
    """
    return problem.compose(Composition((LossSpec("am_softmax", 1.0, {"margin": margin, "scale": scale}),)))


def sphereface(problem: Problem, *, margin: int = 4, annealed: bool = True) -> Method:
    """SphereFace: a multiplicative margin on the angle.

    Paper: Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017.
    When: to compare with older work; arcface and cosface train more easily.

    Args:
        problem: What it is built for.
        margin: Factor on the angle, a whole number.
        annealed: Begin near the plain softmax, as the authors' code does.
    """
    return problem.compose(Composition((LossSpec("sphereface", 1.0, {"margin": margin, "annealed": annealed}),)))


def _effective(cb_beta: float) -> dict[str, Any]:
    return {"rule": "effective-number", "cb_beta": cb_beta}


def drw(cb_beta: float, defer_until: float) -> dict[str, Any]:
    """Arguments of `ClassWeighting` for weights by effective number that act late in training.

    Raises:
        InputError: A share of training outside [0, 1].
    """
    if not 0 <= defer_until <= 1:
        raise InputError("defer_until in [0, 1]", repr(defer_until), "use 0.8, the paper's")
    return {**_effective(cb_beta), "schedule": Schedule("deferred", defer_until)}


def _ldam(max_margin: float, scale: float) -> LossSpec:
    return LossSpec("ldam", 1.0, {"max_margin": max_margin, "scale": scale})
