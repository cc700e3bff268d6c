"""Recipes with parts of their own: key encoder and queue, prototypes, branches, a decoder.

The keyword arguments are the recipe's options, `-o name=value` on the command line.
"""

from __future__ import annotations

from dataclasses import replace

from pipelines.composition import COSINE_SCALE, Composition, Problem
from pipelines.loss_terms import LossSpec
from rebalance.classifier import Classifier
from rebalance.decoder import Decoder
from rebalance.errors import InputError, nearest
from rebalance.heads import ProjectionHead
from rebalance.losses import BalancedContrastiveLoss, BalancedSoftmaxLoss, PaCoLoss, ResidualLoss, branch_groups
from rebalance.methods.autoencoder import AutoencoderMethod
from rebalance.methods.balanced_contrastive import BalancedContrastiveMethod
from rebalance.methods.base import Method
from rebalance.methods.parametric_contrastive import ParametricContrastiveMethod
from rebalance.methods.residual import ResidualMethod
from rebalance.queue import FeatureQueue

RESIDUAL_HEADS = {"norm": "residual_norm", "conv": "residual_conv"}


def paco(
    problem: Problem,
    *,
    alpha: float = 0.01,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 0.05,
    queue: int = 1024,
    queue_init: str = "empty",
    projection: int = 32,
    momentum: float = 0.999,
) -> Method:
    """PaCo: contrast with learnable class centres, a queue and a slow key encoder, on two views.

    The defaults are those of CIFAR-100-LT; ImageNet-LT takes alpha=0.05 temperature=0.2 queue=8192 projection=128.

    Paper: Cui et al., Parametric Contrastive Learning, ICCV 2021.
    When: training may take the 400 epochs with strong augmentation that its published figures come from.

    Args:
        problem: What it is built for.
        alpha: Weight of a pair of images of one class.
        beta: Weight of the pair with the class centre.
        gamma: Weight of the pairs in the denominator.
        temperature: Of the pairs.
        queue: Keys that are remembered.
        queue_init: empty, or official: full of random keys from the start.
        projection: Length of the vectors that are contrasted.
        momentum: Of the key encoder.
    """
    loss = PaCoLoss(problem.counts, alpha=alpha, beta=beta, gamma=gamma, temperature=temperature)
    head = ProjectionHead(problem.backbone.n_features, projection, batch_norm=True)
    memory = _queue(problem, queue, projection, queue_init)
    return ParametricContrastiveMethod(_linear(problem), head, loss, memory, momentum=momentum)


def gpaco(
    problem: Problem,
    *,
    alpha: float = 0.01,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 0.07,
    queue: int = 1024,
    queue_init: str = "empty",
    projection: int = 128,
    label_smoothing: float = 0.0,
) -> Method:
    """GPaCo: PaCo without a key encoder; all views are anchors.

    The defaults are those of CIFAR-100; ImageNet-LT takes alpha=0.05 temperature=0.2 queue=8192.

    Paper: Cui et al., Generalized Parametric Contrastive Learning, TPAMI 2023.
    When: as paco; it is the simpler and, by its authors' figures, the better of the two, with gradients on both views.

    Args:
        problem: What it is built for.
        alpha: Weight of a pair of images of one class.
        beta: Weight of the pair with the class centre.
        gamma: Weight of the pairs in the denominator.
        temperature: Of the pairs.
        queue: Keys that are remembered.
        queue_init: empty, or official: full of random keys from the start.
        projection: Length of the vectors that are contrasted.
        label_smoothing: Of the class centre's target.
    """
    loss = PaCoLoss(
        problem.counts, alpha=alpha, beta=beta, gamma=gamma, temperature=temperature, label_smoothing=label_smoothing
    )
    head = ProjectionHead(problem.backbone.n_features, projection, n_layers=3)
    memory = _queue(problem, queue, projection, queue_init)
    return ParametricContrastiveMethod(_linear(problem), head, loss, memory, momentum=None)


def bcl(
    problem: Problem,
    *,
    alpha: float = 2.0,
    beta: float = 0.6,
    temperature: float = 0.1,
    scale: float = COSINE_SCALE,
    projection: int = 128,
    hidden: int = 512,
) -> Method:
    """BCL: balanced softmax on one view and a balanced contrast with class prototypes on two more.

    The defaults are those of CIFAR-LT; ImageNet-LT takes alpha=1 beta=0.35 temperature=0.07 projection=1024
    hidden=2048.

    Paper: Zhu et al., Balanced Contrastive Learning for Long-Tailed Visual Recognition, CVPR 2022.
    When: three views an image can be paid for; on ImageNet-LT its authors come near PaCo in a quarter of the epochs.

    Args:
        problem: What it is built for.
        alpha: Factor of the classification loss.
        beta: Factor of the contrastive loss.
        temperature: Of the contrastive loss.
        scale: From cosines to logits.
        projection: Length of the vectors that are contrasted.
        hidden: Width of the network that makes them.
    """
    classifier = Classifier(problem.backbone, len(problem.classes), head="cosine", scale=scale)
    n_features = problem.backbone.n_features
    return BalancedContrastiveMethod(
        classifier,
        ProjectionHead(n_features, projection, n_hidden=hidden, batch_norm=True),
        ProjectionHead(n_features, projection, n_hidden=hidden, batch_norm=True),
        BalancedSoftmaxLoss(problem.counts),
        BalancedContrastiveLoss(temperature=temperature),
        alpha=alpha,
        beta=beta,
    )


def reslt(
    problem: Problem,
    *,
    alpha: float = 0.995,
    medium_share: float = 0.65,
    tail_share: float = 0.3,
    head: str = "norm",
    tau: float = 0.0,
    fused_eps: float = 0.0,
    label_smoothing: float = 0.0,
) -> Method:
    """ResLT: one branch for all classes, one for all but the head, one for the tail, over one feature map.

    The defaults are those of CIFAR-100-LT; CIFAR-10-LT takes alpha=0.998 medium_share=0.8 tail_share=0.6; ImageNet-LT
    alpha=0.99 medium_share=0.825 tail_share=0.22 head=conv fused_eps=1e-7 tau=0.3, with ResNeXt tau=0.7; iNaturalist
    2018 alpha=0.85 medium_share=0.8106 tail_share=0 head=conv.

    Paper: Cui et al., ResLT: Residual Learning for Long-tailed Recognition, TPAMI 2022.
    When: one view an image is all that can be paid for, and alpha can be tuned: it depends on the data.

    Args:
        problem: What it is built for.
        alpha: Weight of the branches, against that of their sum.
        medium_share: The rarest share of the classes, which the second branch answers for.
        tail_share: The rarest share of the classes, which the third branch answers for; 0 for no third branch.
        head: norm, where branches differ in their batch norm (CIFAR), or conv, where each has its own channels.
        tau: Of head=conv: by which power of their length its rows are divided in evaluation.
        fused_eps: Added to the probability of the branches' sum inside the logarithm.
        label_smoothing: Of all targets.
    """
    if head not in RESIDUAL_HEADS:
        raise InputError("head=norm or head=conv", repr(head), nearest(head, RESIDUAL_HEADS))
    if tau and head != "conv":
        raise InputError("tau with head=conv", f"tau={tau} with head={head}", "leave tau out, or choose head=conv")
    groups = branch_groups(problem.counts, shares=(1.0, medium_share, tail_share)[: 3 if tail_share else 2])
    options = {"n_branches": len(groups), **({"tau": tau} if head == "conv" else {})}
    classifier = Classifier(problem.backbone, len(problem.classes), head=RESIDUAL_HEADS[head], head_options=options)
    loss = ResidualLoss(groups, alpha=alpha, fused_eps=fused_eps, label_smoothing=label_smoothing)
    return ResidualMethod(classifier, loss)


def autoencoder(
    problem: Problem,
    *,
    encoder: str = "",
    stage: str = "end_to_end",
    loss: str = "ce",
    reconstruction_weight: float = 1.0,
    pretraining: float = 0.5,
    skips: bool = False,
) -> Method:
    """A classifier whose encoder must also reconstruct the image, through a decoder that is thrown away.

    When: labels are few and images simple enough to reconstruct, such as signs, parts or scans; compare it with
    stage=classifier, since nothing is published on long tails.

    Args:
        problem: What it is built for.
        encoder: unet, mobilenet_v2 or any other backbone; by default --model.
        stage: end_to_end: both losses together. separate: first reconstruction alone, then a classifier on the encoder
            as it is. classifier: no reconstruction, for comparison.
        loss: Classification loss, by its name on the command line.
        reconstruction_weight: λ, the factor of the reconstruction.
        pretraining: Share of training that reconstructs, in stage separate.
        skips: Join encoder and decoder at every resolution, as a U-Net does.
    """
    if encoder and encoder != problem.backbone.name:
        if problem.make_backbone is None:
            raise InputError("the backbone itself", f"encoder={encoder}", "build the problem with this backbone")
        problem = replace(problem, backbone=problem.make_backbone(encoder))
    return AutoencoderMethod(
        problem.compose(Composition((LossSpec(loss),))),
        Decoder(problem.backbone.stage_channels, skips=skips),
        stage=stage,  # type: ignore[arg-type]  # checked there
        reconstruction_weight=reconstruction_weight,
        pretraining=pretraining,
    )


def _linear(problem: Problem) -> Classifier:
    return Classifier(problem.backbone, len(problem.classes))


def _queue(problem: Problem, size: int, dim: int, init: str) -> FeatureQueue:
    return FeatureQueue(size, dim, init=init, n_classes=len(problem.classes))  # type: ignore[arg-type]  # checked there
