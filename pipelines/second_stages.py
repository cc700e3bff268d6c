"""Second stages by name: what each makes of a trained classifier.

Their keyword arguments are their options. The option `sampler_rule` is read by `pipelines.retraining`, which draws the
images of a stage that is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.model_files import ModelDescription
from pipelines.strengths import choose_strength
from rebalance.classifier import Classifier
from rebalance.errors import InputError
from rebalance.losses import CrossEntropyLoss, LabelAwareSmoothingLoss, logit_adjustments
from rebalance.methods.second_stage import SecondStageMethod
from rebalance.two_stage import NearestClassMean, ScaledLinearHead
from rebalance.two_stage import tau_norm as tau_normalized


@dataclass(frozen=True)
class FirstStage:
    """A trained classifier and what a second stage may look at.

    Args:
        classifier: On the device, in evaluation mode.
        description: How it is built.
        outputs: (split, module) → outputs of a module for all images of the split, with their class ids; None where
            there is no such split.
        knows_prior: The loss that it was trained with already had the class prior in it, and its name; "" if not.
    """

    classifier: Classifier
    description: ModelDescription
    outputs: Callable[[str, nn.Module], tuple[Tensor, Tensor] | None]
    knows_prior: str = ""

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.description.classes)


@dataclass(frozen=True)
class SecondStage:
    """A second stage: a method to train, or a classifier that is ready.

    Args:
        made: The method, or the classifier.
        description: How the classifier that is saved is built.
        facts: What was chosen, for the run's metrics.
    """

    made: SecondStageMethod | Classifier
    description: ModelDescription
    facts: dict[str, Any] = field(default_factory=dict)


def crt(first: FirstStage, *, sampler_rule: str = "inverse", shift_batch_norm: bool = True) -> SecondStage:
    """cRT: a new linear classifier, trained on class-balanced draws.

    Paper: Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020.
    When: a first stage with plain cross entropy or mixup; the simplest of the second stages, for any first one.

    Args:
        first: The first stage.
        sampler_rule: Rule of the draws; inverse draws classes alike.
        shift_batch_norm: Let batch-norm statistics move to those draws, as in the authors' code.
    """
    classifier = Classifier(first.classifier.backbone, first.n_classes)
    method = SecondStageMethod(classifier, CrossEntropyLoss(), shift_batch_norm=shift_batch_norm)
    return SecondStage(method, _linear(first))


def lws(first: FirstStage, *, sampler_rule: str = "inverse", shift_batch_norm: bool = True) -> SecondStage:
    """LWS: one learnt factor a class on the logits of the trained classifier.

    Paper: Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020.
    When: there are too few images to train a whole classifier anew. Factors get no weight decay.

    Args:
        first: The first stage, with a linear head.
        sampler_rule: Rule of the draws; inverse draws classes alike.
        shift_batch_norm: Let batch-norm statistics move to those draws, as in the authors' code.
    """
    classifier = _scaled(first, "lws")
    method = SecondStageMethod(classifier, CrossEntropyLoss(), shift_batch_norm=shift_batch_norm, head_factor=0.0)
    return SecondStage(method, _linear(first))


def tau_norm(first: FirstStage, *, tau: str = "auto", use_bias: bool = False) -> SecondStage:
    """τ-normalisation: divide each class vector by a power of its length; nothing is trained.

    Paper: Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020.
    When: nothing may be trained, and a validation split can choose tau.

    Args:
        first: The first stage, with a linear head.
        tau: The power; auto chooses it on the validation split, or takes 1 without one.
        use_bias: Keep the bias, which the authors' code drops.
    """
    head = _linear_head(first, "tau_norm", "a cosine head ignores the lengths that tau_norm changes")
    found = first.outputs("val", first.classifier.backbone)

    def normalized(strength: float) -> nn.Linear:
        weight, bias = tau_normalized(head.weight, head.bias, tau=strength, use_bias=use_bias)
        new = nn.Linear(head.in_features, head.out_features).to(head.weight)
        with torch.no_grad():
            new.weight.copy_(weight)
            new.bias.copy_(torch.zeros_like(head.bias) if bias is None else bias)
        return new

    strength, facts = choose_strength(tau, found, lambda value, features: normalized(value)(features))
    classifier = Classifier(first.classifier.backbone, first.n_classes)
    classifier.head = normalized(strength)
    return SecondStage(classifier, _linear(first), facts)


def ncm(first: FirstStage, *, transform: str = "cl2n", distance: str = "l2") -> SecondStage:
    """Nearest class mean: no classifier but the mean training feature of each class.

    Paper: Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020.
    When: to see what the features alone are worth; its outputs are distances, so its confidences mean little.

    Args:
        first: The first stage.
        transform: Of the features: un (none), l2n (unit length), cl2n (centred, then unit length).
        distance: l2, or cos, the product with the mean.
    """
    found = first.outputs("train", first.classifier.backbone)
    assert found is not None, "every run has a training split"
    options: dict[str, Any] = {"transform": transform, "distance": distance}
    classifier = Classifier(first.classifier.backbone, first.n_classes, head="class_means", head_options=options)
    classifier.head = NearestClassMean(*found, first.n_classes, **options)
    return SecondStage(classifier, replace(first.description, head="class_means", scale=1.0, head_options=options))


def linear(first: FirstStage, *, sampler_rule: str = "inverse", shift_batch_norm: bool = False) -> SecondStage:
    """Linear probe: a new linear classifier on features that do not change at all.

    Paper: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020.
    When: the first stage was contrastive pre-training, such as --method supcon -o share=1.

    Args:
        first: The first stage.
        sampler_rule: Rule of the draws; inverse draws classes alike, none takes images as they are.
        shift_batch_norm: Let batch-norm statistics move, which makes it cRT.
    """
    return crt(first, sampler_rule=sampler_rule, shift_batch_norm=shift_batch_norm)


def logit_adjustment(first: FirstStage, *, tau: str = "auto") -> SecondStage:
    """Post-hoc logit adjustment: take tau times the log prior off the logits; nothing is trained.

    Paper: Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021.
    When: a model of plain cross entropy cannot be trained again; it works on any head.

    Args:
        first: The first stage, trained without a prior in its loss.
        tau: Strength; auto chooses it on the validation split, or takes 1 without one.
    """
    found = first.outputs("val", first.classifier)
    if tau == "auto" and found is None and first.knows_prior:
        raise InputError(
            "a first stage without the class prior in its loss",
            f"one of {first.knows_prior}, which would have it twice",
            "retrain a run of ce, or insist with -o tau=1, or have tau chosen: train with --val-fraction",
        )
    prior = logit_adjustments(first.description.train_counts)
    strength, facts = choose_strength(
        tau, found, lambda value, logits: logits.double() - value * prior.to(logits.device)
    )
    old = first.classifier
    classifier = Classifier(
        old.backbone,
        first.n_classes,
        head=old.head_name,
        scale=old.scale,
        head_options=old.head_options,
        adjusted=True,
    )
    classifier.head = old.head
    assert classifier.logit_bias is not None
    classifier.logit_bias.copy_(-strength * prior)
    return SecondStage(classifier, replace(first.description, adjusted=True), facts)


def label_aware_smoothing(
    first: FirstStage,
    *,
    smooth_head: float = 0.3,
    smooth_tail: float = 0.0,
    shape: str = "concave",
    power: float | None = None,
    to_others_only: bool = False,
    head_factor: float = 0.5,
    sampler_rule: str = "inverse",
    shift_batch_norm: bool = True,
) -> SecondStage:
    """MiSLAS, stage 2: the trained classifier and a factor a class, with labels smoothed more for frequent classes.

    The defaults are those of CIFAR-10-LT, but for shift_batch_norm, which is on for all other data; CIFAR-100-LT takes
    smooth_head=0.4 smooth_tail=0.1 head_factor=0.2, ImageNet-LT head_factor=0.05.

    Paper: Zhong et al., Improving Calibration for Long-Tailed Recognition, CVPR 2021.
    When: the first stage was trained with --mix mixup, and probabilities are to be believed.

    Args:
        first: The first stage, with a linear head.
        smooth_head: Smoothing of the largest class.
        smooth_tail: Smoothing of the smallest class.
        shape: How it falls in between: concave, linear, convex or exp.
        power: The exponent of shape exp.
        to_others_only: Spread the smoothed share over the other classes alone, as in the paper; its code takes all.
        head_factor: Factor of the learning rate of the classifier; the factors learn at the full rate.
        sampler_rule: Rule of the draws; inverse draws classes alike.
        shift_batch_norm: Let batch-norm statistics move to those draws; the authors' CIFAR-10 configs do not.
    """
    classifier = _scaled(first, "label_aware_smoothing")
    loss = LabelAwareSmoothingLoss(
        first.description.train_counts,
        smooth_head=smooth_head,
        smooth_tail=smooth_tail,
        shape=shape,  # type: ignore[arg-type]  # checked there
        power=power,
        to_others_only=to_others_only,
    )
    method = SecondStageMethod(classifier, loss, shift_batch_norm=shift_batch_norm, head_factor=head_factor)
    return SecondStage(method, _linear(first))


SECOND_STAGES: dict[str, Callable[..., SecondStage]] = {
    "crt": crt,
    "lws": lws,
    "tau_norm": tau_norm,
    "ncm": ncm,
    "linear": linear,
    "logit_adjustment": logit_adjustment,
    "label_aware_smoothing": label_aware_smoothing,
}


def _linear(first: FirstStage) -> ModelDescription:
    return replace(first.description, head="linear", scale=1.0, head_options={})


def _linear_head(first: FirstStage, method: str, why: str) -> nn.Linear:
    head = first.classifier.head
    if isinstance(head, nn.Linear):
        return head
    branches = "its branches share one classifier under different norms"
    raise InputError(
        f"a first stage with a linear head for {method}",
        f"a {first.classifier.head_name} head: {why if first.classifier.head_name == 'cosine' else branches}",
        "use crt or ncm, which make a head of their own, or logit_adjustment",
    )


def _scaled(first: FirstStage, method: str) -> Classifier:
    head = _linear_head(first, method, "factors cannot be folded into cosines")
    classifier = Classifier(first.classifier.backbone, first.n_classes, head="scaled_linear")
    assert isinstance(classifier.head, ScaledLinearHead)
    classifier.head.linear.load_state_dict(head.state_dict())
    return classifier
