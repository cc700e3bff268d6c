"""Recipes that add a part to a loss: a batch mix, a contrast of views, a feature generator, or what the user names.

The keyword arguments are the recipe's options, `-o name=value` on the command line.
"""

from __future__ import annotations

from pipelines.composition import Composition, MixSpec, Problem, RareSpec
from pipelines.loss_recipes import drw
from pipelines.loss_terms import LossSpec
from rebalance.errors import InputError
from rebalance.methods.base import Method


def balanced_mixup(problem: Problem, *, alpha: float = 0.2, until: float = 0.9) -> Method:
    """Balanced softmax on mixed images, unmixed ones at the end: the default.

    Paper: Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS 2020, and Zhang et al., mixup:
    Beyond Empirical Risk Minimization, ICLR 2018.
    When: first of all; it costs next to nothing over balanced_softmax. Long trainings of photographs stand more mixing,
    up to alpha=1.

    Args:
        problem: What it is built for.
        alpha: λ ~ Beta(alpha, alpha): 1 blends most pairs, 0.2 few.
        until: Share of training after which nothing is mixed.
    """
    return problem.compose(Composition((LossSpec("balanced_softmax"),), mix=MixSpec("mixup", alpha, until=until)))


def mixup_drw(
    problem: Problem, *, alpha: float = 1.0, cb_beta: float = 0.9999, defer_until: float = 0.8, until: float = 1.0
) -> Method:
    """Mixup with deferred re-weighting, as in imbalanced-DL.

    Paper: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
    When: one view an image is all that can be paid for, and training is long: over weights alone, imbalanced-DL reports
    6 to 7 points more on CIFAR-LT after 200 epochs.

    Args:
        problem: What it is built for.
        alpha: λ ~ Beta(alpha, alpha).
        cb_beta: β of the effective number.
        defer_until: Share of training before the weights act.
        until: Share of training after which nothing is mixed.
    """
    return _mix_drw(problem, MixSpec("mixup", alpha, until=until), cb_beta, defer_until)


def remix_drw(
    problem: Problem, *, alpha: float = 1.0, cb_beta: float = 0.9999, defer_until: float = 0.8, until: float = 1.0
) -> Method:
    """Remix, a mixup whose label leans to the rarer class, with deferred re-weighting.

    Paper: Chou et al., Remix: Rebalanced Mixup, ECCV Workshops 2020.
    When: as mixup_drw, where the rare classes are to gain at some cost for the frequent ones.

    Args:
        problem: What it is built for.
        alpha: λ ~ Beta(alpha, alpha).
        cb_beta: β of the effective number.
        defer_until: Share of training before the weights act.
        until: Share of training after which nothing is mixed.
    """
    return _mix_drw(problem, MixSpec("remix", alpha, until=until), cb_beta, defer_until)


def _mix_drw(problem: Problem, mix: MixSpec, cb_beta: float, defer_until: float) -> Method:
    return problem.compose(Composition((LossSpec("ce"),), drw(cb_beta, defer_until), mix=mix))


def supcon(
    problem: Problem, *, loss: str = "ce", share: float = 0.5, temperature: float = 0.1, projection: int = 128
) -> Method:
    """SupCon beside a classification loss: (1 - share) · loss + share · SupCon, on two views.

    share = 1 is pre-training: then `rebalance retrain RUN --method linear` gives it a classifier.

    Paper: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020.
    When: features for later use are wanted; on long tails give it a balanced loss, or use bcl or paco.

    Args:
        problem: What it is built for.
        loss: Classification loss, by its name on the command line.
        share: Of SupCon in the sum.
        temperature: Of SupCon.
        projection: Length of the vectors that are contrasted.
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
    center_gradient: str = "bounded",
    cb_beta: float = 0.9999,
    defer_until: float = 0.8,
) -> Method:
    """The rare-sample generator: new tail features inside the network; by default with LDAM-DRW.

    Paper: Wang et al., RSG: A Simple but Effective Module for Learning Imbalanced Datasets, CVPR 2021.
    When: ldam_drw is the base and the tail needs more variety; it costs nothing at inference.

    Args:
        problem: What it is built for.
        loss: Classification loss, by its name on the command line.
        start: Share of training from which it generates; before, it learns.
        stage: It works after this many stages of the backbone; 0 is before the last.
        n_centers: Centres of each class.
        strength: Share of the larger of the groups, head and tail, that is paired.
        head_share: The most frequent share of the classes is the head.
        layout: Rows of its loss: official, or per_location.
        center_gradient: How fast the centres of maps beyond 8 × 8 learn: bounded, or exact, as in the original.
        cb_beta: β of the effective number.
        defer_until: Share of training before the class weights act.
    """
    generator = {"n_centers": n_centers, "strength": strength, "head_share": head_share}
    variants = {"layout": layout, "center_gradient": center_gradient}
    rare = RareSpec(start, stage or None, {**generator, **variants})
    return problem.compose(Composition((LossSpec(loss),), drw(cb_beta, defer_until), rare=rare))


def composed(problem: Problem) -> Method:
    """Whatever --loss, --head, --loss-rule, --mix and --rsg say; no parts of its own.

    When: no recipe is what you want: --loss ldam:0.1 --loss supcon:0.9 --rsg, say.
    """
    if problem.switches.losses is None:
        raise InputError("--loss for the method composed", "none", "name at least one, such as --loss ce")
    return problem.compose(Composition(()))
