"""Most recipes: backbone + head + a weighted list of losses, with class weights that have a rule and a schedule.

Each part is an independent switch: any classification losses, any contrastive losses over a projection, optionally a
feature generator (RSG) between two stages of the backbone, optionally a batch mix. What cannot go together says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, final

import torch
from torch import Tensor, nn

from rebalance.classifier import Classifier
from rebalance.errors import InputError
from rebalance.methods.base import Batch, Method, Mix
from rebalance.methods.batch_mix import BatchMix
from rebalance.methods.weighting import ClassWeighting

Takes = Literal["logits", "cosines", "cosines and norms", "views"]


@dataclass(frozen=True)
class LossTerm:
    """One loss of a composition.

    Args:
        name: Under which it is logged.
        loss: Module that gives (B,) for reduction="none".
        share: Its factor in the sum.
        takes: "logits", "cosines" for a loss with a scale of its own, "cosines and norms" (SphereFace), or "views" for
            a contrastive loss over unit projections (B, V, D).
    """

    name: str
    loss: nn.Module
    share: float = 1.0
    takes: Takes = "logits"


class Extended(NamedTuple):
    """A batch of maps with generated rows behind the real ones."""

    maps: Tensor  # (B + G, D, H, W)
    targets: Tensor  # (B + G,)
    source: Tensor  # (B + G,) the row of the batch that each row's weight is inherited from
    losses: dict[str, Tensor]


class FeatureGenerator(Protocol):
    """What makes rows of maps inside the network, such as `generators.rare_features.RareFeatureGenerator`."""

    def __call__(self, maps: Tensor, targets: Tensor, active: bool, /) -> Extended:
        """The batch, extended where `active`, and the generator's own losses."""

    def idle_parameters(self, active: bool) -> Iterable[nn.Parameter]:
        """Those that it does not train while `active`, or while not."""


@dataclass(frozen=True)
class Generation:
    """A feature generator and its place.

    Args:
        generator: The module.
        stage: It works on the maps after this many stages.
        start: Share of training from which it generates; before, it learns.
        shares: Factor of each of its losses, by name.
    """

    generator: FeatureGenerator
    stage: int
    start: float
    shares: dict[str, float]


class Rows(NamedTuple):
    """Rows that are classified: of every view, or of the mixed first one, and behind them generated ones."""

    images: Tensor  # (M, 3, H, W) of the first M rows, as the network saw them
    features: Tensor  # (N, D)
    targets: Tensor  # (N,)
    weight: Tensor  # (N,) sample weight
    mix: Mix | None  # with the partners' weights beside it
    partner_weight: Tensor | None

    @property
    def mean_weight(self) -> Tensor:
        """(N,) sample weight; of a mixed row, both partners' by their shares."""
        if self.mix is None or self.partner_weight is None:
            return self.weight
        lam = self.mix.lam.to(self.weight.dtype)
        return lam * self.weight + (1 - lam) * self.partner_weight


class Pass(NamedTuple):
    """What one pass over a batch gave."""

    terms: dict[str, Tensor]  # the losses
    rows: Rows
    scores: Tensor | None  # (N, C) the head's, of the rows; None without a classification loss


@final
class ComposedMethod(Method):
    """A classifier trained with a sum of losses.

    Without a mix, every view is classified and contrasted. With one, the first view is mixed and classified, and the
    others, unmixed, are contrasted.

    Args:
        classifier: Backbone, head, and the scale of its logits.
        terms: The losses.
        weighting: Class weights, which every classification loss is multiplied by.
        projection: Features → unit vectors, for contrastive losses.
        generation: A feature generator inside the backbone.
        mix: A batch mix.

    Raises:
        InputError: Parts that do not go together.
    """

    def __init__(
        self,
        classifier: Classifier,
        terms: Sequence[LossTerm],
        weighting: ClassWeighting,
        *,
        projection: nn.Module | None = None,
        generation: Generation | None = None,
        mix: BatchMix | None = None,
    ) -> None:
        super().__init__()
        _check_parts(classifier, terms, generation, mix)
        self._classifier = classifier
        self.weighting = weighting
        self.terms = tuple(terms)
        self.losses = nn.ModuleDict({term.name: term.loss for term in terms})
        self.contrastive = [term for term in terms if term.takes == "views"]
        self.projection = projection if self.contrastive else None
        self.generation = generation
        self.generator = generation.generator if generation is not None else None
        self.mix = mix
        self.views = "sim" if self.contrastive else None
        self.n_views = (2 if self.contrastive else 1) + (1 if self.contrastive and mix is not None else 0)
        self._generating = False
        self._mixing = mix is not None

    @property
    def classifier(self) -> Classifier:
        """See `Method`."""
        return self._classifier

    def before_step(self, progress: float) -> None:
        """Whether the generator is active and images are mixed: static phases, so the graph changes twice at most."""
        self._generating = self.generation is not None and progress >= self.generation.start
        self._mixing = self.mix is not None and progress < self.mix.until

    def frozen_parameters(self) -> Iterable[nn.Parameter]:
        """What the feature generator does not train yet, or no longer: a long warm-up would decay it to nothing."""
        return () if self.generation is None else self.generation.generator.idle_parameters(self._generating)

    def forward(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        """See `Method`."""
        return self.one_pass(batch, progress).terms

    def one_pass(self, batch: Batch, progress: Tensor) -> Pass:
        """The loss terms of `forward`, and what a method that wraps this one needs to add its own."""
        rows, projections, losses = self._rows(batch)
        terms: dict[str, Tensor] = {}
        scores = self._classifier.head(rows.features) if len(self.contrastive) < len(self.terms) else None
        for term in self.terms:
            if term.takes == "views":
                values = term.loss(projections, batch.targets, reduction="none")
                terms[term.name] = term.share * torch.dot(values.float(), batch.weight) / len(batch.targets)
            else:
                assert scores is not None
                terms[term.name] = term.share * self._mean(term, scores, rows, progress)
        for name, value in losses.items():
            assert self.generation is not None
            terms[name] = self.generation.shares[name] * value
        if scores is None:  # DDP wants every parameter in the graph
            terms["unused"] = 0.0 * torch.stack([p.sum() for p in self._classifier.head.parameters()]).sum()
        return Pass(terms, rows, scores)

    def classify(self, features: Tensor, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        """Named losses of features (B, D) of the batch's images, unmixed; for a method with a pass of its own."""
        scores = self._classifier.head(features)
        rows = Rows(batch.views[:, 0], features, batch.targets, batch.weight, None, None)
        return {term.name: term.share * self._mean(term, scores, rows, progress) for term in self.terms}

    def _rows(self, batch: Batch) -> tuple[Rows, Tensor | None, dict[str, Tensor]]:
        """One pass over all views: rows to classify, projections to contrast, the generator's losses."""
        n, n_views = batch.views.shape[:2]
        views, mix, partner_weight = batch.views, None, None
        apart = self.mix is not None and bool(self.contrastive)
        if self.mix is not None and self._mixing:
            mixed = self.mix(views[:, 0], batch.targets)
            views = torch.cat([mixed.images[:, None], views[:, 1:]], dim=1)
            mix, partner_weight = mixed.mix, batch.weight[mixed.partners]
        images = views.transpose(0, 1).flatten(0, 1)  # view by view: the first n rows are view 0
        targets, weight = batch.targets.repeat(n_views), batch.weight.repeat(n_views)
        features, targets, weight, losses = self._features(images, targets, weight)
        projections = None
        if self.projection is not None:
            first = 1 if apart else 0
            own = self.projection(features[first * n : n_views * n])
            projections = own.unflatten(0, (n_views - first, n)).transpose(0, 1)
        classified = n if apart else len(features)
        rows = Rows(
            images[:classified], features[:classified], targets[:classified], weight[:classified], mix, partner_weight
        )
        return rows, projections, losses

    def _features(
        self, images: Tensor, targets: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        backbone = self._classifier.backbone
        if self.generation is None:
            return backbone(images), targets, weight, {}
        maps = backbone.run(images, 0, self.generation.stage)
        extended = self.generation.generator(maps, targets, self._generating)
        features = backbone.pool(backbone.run(extended.maps, self.generation.stage))
        return features, extended.targets, weight[extended.source], extended.losses

    def _mean(self, term: LossTerm, scores: Tensor, rows: Rows, progress: Tensor) -> Tensor:
        """Sum of the weighted losses over the rows, divided by their number."""
        if rows.mix is None or rows.partner_weight is None:
            return self._weighted(term, scores, rows.features, rows.targets, rows.weight, progress).mean()
        both = self._weighted(  # in one call, since a loss may count its calls, as SphereFace's annealing does
            term,
            torch.cat([scores, scores]),
            torch.cat([rows.features, rows.features]),
            torch.cat([rows.targets, rows.mix.targets]),
            torch.cat([rows.weight, rows.partner_weight]),
            progress,
        )
        own, other = both.chunk(2)
        lam = rows.mix.lam.to(own.dtype)
        return (lam * own + (1 - lam) * other).mean()

    def _weighted(
        self, term: LossTerm, scores: Tensor, features: Tensor, targets: Tensor, weight: Tensor, progress: Tensor
    ) -> Tensor:
        if term.takes == "cosines and norms":
            values = term.loss(scores, targets, features.float().norm(dim=1), reduction="none")
        else:
            given = self._classifier.to_logits(scores, features) if term.takes == "logits" else scores
            values = term.loss(given, targets, reduction="none")
        return values.float() * weight * self.weighting(targets, progress)  # type: ignore[no-any-return]


def _check_parts(
    classifier: Classifier, terms: Sequence[LossTerm], generation: Generation | None, mix: BatchMix | None
) -> None:
    if not terms:
        raise InputError("at least one loss", "none", "name a loss, such as ce")
    names = [term.name for term in terms]
    if len(set(names)) < len(names):
        raise InputError("different losses", ", ".join(names), "give each loss once, with its share")
    for term in terms:
        if term.takes.startswith("cosines") and classifier.head_name != "cosine":
            raise InputError(
                f"a cosine head for {term.name}", f"a {classifier.head_name} head", "use --head cosine, or another loss"
            )
        if not term.share > 0:
            raise InputError("shares > 0", f"{term.share:g} for {term.name}", "leave the loss out")
    if generation is not None and not hasattr(generation.generator, "idle_parameters"):
        raise InputError(
            "a feature generator with idle_parameters",
            type(generation.generator).__name__,
            "name the parameters that each phase gives no step; return () for none",
        )
    if generation is not None and mix is not None:
        raise InputError(
            "images of one class each for the rare-feature generator",
            f"{mix.kind}, which mixes classes",
            "leave out --rsg, or add --mix none",
        )
    if generation is not None and not 0 < generation.stage < len(classifier.backbone.stages):
        raise InputError(
            f"a stage from 1 to {len(classifier.backbone.stages) - 1} to generate features after",
            str(generation.stage),
            "leave it out for the one before the last",
        )
