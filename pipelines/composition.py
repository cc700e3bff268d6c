"""A composition in words → a ComposedMethod: losses by name, head, class weights, rare-feature generator, batch mix.

A recipe describes its composition; the user's switches replace parts of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from generators.rare_features import RareFeatureGenerator
from pipelines.loss_terms import SIGMOID_LOSSES, LossSpec, loss_term
from rebalance.backbones import Backbone
from rebalance.classifier import Classifier
from rebalance.counts import FloatArray
from rebalance.errors import InputError, nearest
from rebalance.heads import ProjectionHead
from rebalance.losses import sigmoid_bias
from rebalance.methods.batch_mix import BatchMix
from rebalance.methods.composed import ComposedMethod, Generation, LossTerm
from rebalance.methods.weighting import ClassWeighting, DrawnShares

COSINE_SCALE = 30.0
"""Scale of a cosine head's logits where no loss brings its own."""
SWITCH_FLAGS = {
    "losses": "--loss",
    "weighting": "--loss-rule",
    "head": "--head",
    "scale": "--head-scale",
    "mix": "--mix",
    "rare": "--rsg",
}
"""Field of `Switches` → its flag."""
_HEADS = ("linear", "cosine")


@dataclass(frozen=True)
class MixSpec:
    """A batch mix by name; see `BatchMix`."""

    kind: str
    alpha: float = 1.0
    probability: float = 1.0
    until: float = 1.0


@dataclass(frozen=True)
class RareSpec:
    """The rare-feature generator; see `RareFeatureGenerator`.

    Args:
        start: Share of training from which it generates.
        stage: It works on the maps after this many stages; by default before the last.
        options: Of `RareFeatureGenerator`.
    """

    start: float = 0.8
    stage: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Composition:
    """What a recipe is made of.

    Args:
        losses: With their shares.
        weighting: Arguments of `ClassWeighting`.
        head: "linear" or "cosine"; by default what the losses need.
        scale: Of a cosine head's logits; by default that of the first loss that has one.
        mix: A batch mix.
        rare: The rare-feature generator.
        projection: Length of the projection that contrastive losses see.
    """

    losses: tuple[LossSpec, ...]
    weighting: Mapping[str, Any] = field(default_factory=dict)
    head: str | None = None
    scale: float | None = None
    mix: MixSpec | None = None
    rare: RareSpec | None = None
    projection: int = 128


@dataclass(frozen=True)
class Switches:
    """What the user puts in place of a recipe's parts; None leaves the recipe's.

    Args:
        losses: Losses.
        weighting: Class weights.
        head: Head.
        scale: Scale of a cosine head.
        mix: Batch mix; "none" takes the recipe's away.
        rare: Rare-feature generator; True is the recipe's, or the default one.
    """

    losses: tuple[LossSpec, ...] | None = None
    weighting: Mapping[str, Any] | None = None
    head: str | None = None
    scale: float | None = None
    mix: MixSpec | str | None = None
    rare: RareSpec | Literal[True] | None = None

    def apply(self, parts: Composition) -> Composition:
        """The recipe's composition with the user's parts."""
        chosen = {
            name: value
            for name in ("losses", "weighting", "head", "scale")
            if (value := getattr(self, name)) is not None
        }
        if self.mix is not None:
            chosen["mix"] = self.mix if isinstance(self.mix, MixSpec) else None
        if self.rare is True:
            chosen["rare"] = parts.rare or RareSpec()
        elif self.rare is not None:
            chosen["rare"] = self.rare
        return replace(parts, **chosen)

    def refuse(self, method: str, *allowed: str) -> None:
        """Refuse the switches that a method with parts of its own does not take.

        Raises:
            InputError: A switch that is set and not `allowed`.
        """
        for name, flag in SWITCH_FLAGS.items():
            if name not in allowed and getattr(self, name) not in (None, "none"):
                raise InputError(
                    f"{method} without {flag}",
                    f"{flag}, which {method} has its own way of",
                    f"leave out {flag}; `rebalance methods {method}` lists its options",
                )


@dataclass(frozen=True)
class Problem:
    """What a method is built for.

    Args:
        backbone: The network.
        counts: Effective training images of each class, for priors and margins, (C,).
        shares: Share of each class among the drawn images, (C,), or how they change.
        classes: Class names.
        switches: The user's own parts.
        make_backbone: Builds another backbone for the same images, by name, for a recipe that names its own.
    """

    backbone: Backbone
    counts: FloatArray
    shares: FloatArray | DrawnShares
    classes: tuple[str, ...]
    switches: Switches = field(default_factory=Switches)
    make_backbone: Callable[[str], Backbone] | None = None

    def weighting(self, **options: Any) -> ClassWeighting:
        """Class weights over the drawn images."""
        return ClassWeighting(self.counts, shares=self.shares, classes=self.classes, **options)

    def compose(self, parts: Composition) -> ComposedMethod:
        """The method that `parts` and the user's switches describe.

        Raises:
            InputError: Unknown names, options out of range, parts that do not go together.
        """
        parts = self.switches.apply(parts)
        terms = [loss_term(spec, self.counts) for spec in parts.losses]
        needs_cosines = any(term.takes.startswith("cosines") for term in terms)
        head = parts.head or ("cosine" if needs_cosines else "linear")
        if head not in _HEADS:
            raise InputError("a head", repr(head), nearest(head, _HEADS))
        if head == "linear" and parts.scale is not None:
            raise InputError(
                "--head cosine with --head-scale", "a linear head, which has no scale", "leave out --head-scale"
            )
        classifier = Classifier(self.backbone, len(self.classes), head=head, scale=_scale(parts, terms, head))
        if head == "linear" and any(spec.name in SIGMOID_LOSSES for spec in parts.losses):
            assert isinstance(classifier.head, nn.Linear)
            nn.init.constant_(classifier.head.bias, sigmoid_bias(len(self.classes)))
        contrastive = any(term.takes == "views" for term in terms)
        return ComposedMethod(
            classifier,
            terms,
            self.weighting(**parts.weighting),
            projection=ProjectionHead(self.backbone.n_features, parts.projection) if contrastive else None,
            generation=None if parts.rare is None else self._generation(parts.rare),
            mix=None if parts.mix is None else BatchMix(counts=self.counts, **vars(parts.mix)),
        )

    def _generation(self, spec: RareSpec) -> Generation:
        n_stages = len(self.backbone.stages)
        if n_stages < 2:
            raise InputError(
                "a backbone of at least two stages for the rare-feature generator",
                f"{self.backbone.name or type(self.backbone).__name__}, which has {n_stages}",
                "use --model resnet32, say",
            )
        stage = spec.stage if spec.stage is not None else n_stages - 1
        if not 0 <= spec.start <= 1:
            raise InputError("--rsg-start in [0, 1]", f"{spec.start:g}", "use 0.8, the paper's")
        channels = self.backbone.stage_channels[min(max(stage, 1), n_stages) - 1]
        generator = RareFeatureGenerator(self.counts, channels, **{"center_gradient": "bounded", **spec.options})
        return Generation(generator, stage, spec.start, {"cesc": 0.1, "mv": 0.01})


def parse_mix(text: str) -> MixSpec | str:
    """A batch mix from text: "mixup", "cutmix:1.0:0.5:0.9" (alpha, probability, until), or "none".

    Raises:
        InputError: A part that is no number.
    """
    kind, *numbers = text.split(":")
    if kind == "none":
        return "none"
    try:
        return MixSpec(kind, *(float(number) for number in numbers))
    except (ValueError, TypeError) as error:
        raise InputError(
            "--mix NAME[:ALPHA[:PROBABILITY[:UNTIL]]]", repr(text), "write for example mixup:1.0"
        ) from error


def _scale(parts: Composition, terms: list[LossTerm], head: str) -> float | None:
    """Factor from the head's scores to logits; None for SphereFace, whose scale is each feature's length."""
    if head == "linear":
        return 1.0
    if parts.scale is not None:
        return parts.scale
    for term in terms:
        if term.takes == "cosines and norms":
            return None
        if term.takes == "cosines":
            return float(term.loss.scale)  # type: ignore[arg-type]  # every loss on cosines has one
    return COSINE_SCALE
