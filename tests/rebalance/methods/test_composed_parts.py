"""A composition with a contrast of views, a feature generator, a batch mix, and what of them goes together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generators.rare_features import RareFeatureGenerator
from rebalance.backbones import SmallCNN
from rebalance.classifier import Classifier
from rebalance.errors import InputError
from rebalance.heads import ProjectionHead
from rebalance.losses import CrossEntropyLoss, LDAMLoss, SphereFaceLoss, SupConLoss
from rebalance.methods.base import Batch
from rebalance.methods.batch_mix import BatchMix
from rebalance.methods.composed import ComposedMethod, Generation, LossTerm
from rebalance.methods.weighting import ClassWeighting
from rebalance.mixing import mixup

COUNTS = [30, 10, 2]
START = torch.tensor(0.0)
CE = LossTerm("ce", CrossEntropyLoss(), 0.4)
SUPCON = LossTerm("supcon", SupConLoss(temperature=0.1, base_temperature=0.1), 0.6, "views")


def batch(n_views: int, n: int = 6, weight: Tensor | None = None) -> Batch:
    stream = torch.Generator().manual_seed(0)
    return Batch(
        views=torch.randn(n, n_views, 3, 8, 8, generator=stream),
        targets=torch.tensor([0, 0, 1, 1, 2, 0])[:n],
        mix=None,
        weight=torch.ones(n) if weight is None else weight,
        synthetic=torch.zeros(n, dtype=torch.bool),
        index=torch.arange(n),
    )


def make(*terms: LossTerm, head: str = "linear", scale: float | None = 1.0, rule: str = "none", **parts: Any):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    classifier = Classifier(SmallCNN(width=8), 3, head=head, scale=scale)
    return ComposedMethod(classifier, terms, ClassWeighting(COUNTS, rule), **parts).eval()


def generation(start: float = 0.5, stage: int = 2) -> Generation:
    torch.manual_seed(1)
    return Generation(RareFeatureGenerator(COUNTS, 16, n_centers=2), stage, start, {"cesc": 0.1, "mv": 0.01})


def features(method: ComposedMethod, images: Tensor) -> Tensor:
    return method.classifier.backbone(images)  # type: ignore[no-any-return]


# Contrast


def test_all_views_are_classified_and_contrasted() -> None:
    method, given = make(CE, SUPCON, projection=ProjectionHead(32, 4)), batch(2)
    assert (method.n_views, method.views) == (2, "sim")
    both = [features(method, given.views[:, v]) for v in (0, 1)]
    logits = torch.cat([method.classifier.logits(part) for part in both])
    terms = method(given, START)
    torch.testing.assert_close(terms["ce"], 0.4 * CrossEntropyLoss()(logits, given.targets.repeat(2)))
    views = torch.stack([method.projection(part) for part in both], dim=1)
    torch.testing.assert_close(terms["supcon"], 0.6 * SUPCON.loss(views, given.targets))


def test_class_weights_do_not_touch_the_contrast() -> None:
    plain = make(CE, SUPCON, projection=ProjectionHead(32, 4))(batch(2), START)
    weighted = make(CE, SUPCON, projection=ProjectionHead(32, 4), rule="inverse")(batch(2), START)
    assert not torch.equal(plain["ce"], weighted["ce"])
    assert torch.equal(plain["supcon"], weighted["supcon"])


def test_the_weight_of_a_contrast_is_the_anchors() -> None:
    method = make(SUPCON, projection=ProjectionHead(32, 4))
    weight = torch.tensor([1.0, 0.3, 0.0, 2.0, 0.3, 1.0])
    each = torch.stack([method(batch(2, weight=torch.eye(6)[i]), START)["supcon"] for i in range(6)])
    torch.testing.assert_close(method(batch(2, weight=weight), START)["supcon"], (each * weight).sum())


def test_without_a_classification_loss_the_head_still_has_a_gradient_of_zeros() -> None:
    method = make(SUPCON, projection=ProjectionHead(32, 4))
    terms = method(batch(2), START)
    assert float(terms["unused"].detach()) == 0
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in method.parameters())  # as DDP needs
    assert not any(bool(parameter.grad.any()) for parameter in method.classifier.head.parameters())


def test_a_projection_that_nothing_uses_is_left_out() -> None:
    assert make(CE, projection=ProjectionHead(32, 4)).projection is None


# Norms


def test_sphereface_gets_cosines_and_the_length_of_the_features() -> None:
    method = make(LossTerm("sphereface", SphereFaceLoss(), takes="cosines and norms"), head="cosine", scale=None)
    given = batch(1)
    x = features(method, given.views[:, 0])
    expected = SphereFaceLoss().eval()(method.classifier.head(x), given.targets, x.norm(dim=1))
    torch.testing.assert_close(method(given, START)["sphereface"], expected)


# A feature generator


def test_generated_rows_are_classified_with_the_weight_of_their_tail_row() -> None:
    method, given = make(CE, generation=generation()), batch(1, weight=torch.tensor([1.0, 1.0, 1.0, 1.0, 0.5, 1.0]))
    method.before_step(0.9)
    maps = method.classifier.backbone.run(given.views[:, 0], 0, 2)
    extended = method.generator(maps, given.targets, True)
    assert len(extended.targets) > 6
    assert set(extended.targets[6:].tolist()) == {1, 2}  # the tail; the head is the largest class
    rows = method.classifier.backbone.pool(method.classifier.backbone.run(extended.maps, 2))
    losses = CrossEntropyLoss()(method.classifier.logits(rows), extended.targets, reduction="none")
    terms = method(given, START)
    torch.testing.assert_close(terms["ce"], 0.4 * (losses * given.weight[extended.source]).mean())
    torch.testing.assert_close(terms["cesc"], 0.1 * extended.losses["cesc"])
    torch.testing.assert_close(terms["mv"], 0.01 * extended.losses["mv"])


def test_nothing_is_generated_before_its_time_nor_at_inference() -> None:
    method, given = make(CE, generation=generation(start=0.5)), batch(1)
    plain = make(CE)
    for progress, same in ((0.0, True), (0.49, True), (0.5, False)):
        method.before_step(progress)
        assert torch.equal(method(given, START)["ce"], plain(given, START)["ce"]) == same
    assert torch.equal(method.predict(given.views[:, 0]), plain.predict(given.views[:, 0]))
    assert method.classifier.state_dict().keys() == plain.classifier.state_dict().keys()


def test_every_parameter_has_a_gradient_in_both_phases() -> None:
    method = make(CE, SUPCON, projection=ProjectionHead(32, 4), generation=generation())
    for progress in (0.0, 0.9):
        method.zero_grad()
        method.before_step(progress)
        sum(method(batch(2), START).values()).backward()
        assert all(parameter.grad is not None for parameter in method.parameters())


# A batch mix


def mixed(given: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """What the method's mix makes of the first views: images, partner rows and λ, drawn as it draws them."""
    torch.manual_seed(5)
    result = BatchMix("mixup", COUNTS)(given.views[:, 0], given.targets)
    assert torch.equal(
        result.images, mixup(given.views[:, 0], given.targets, float(result.mix.lam[0]), result.partners)[0]
    )
    return result.images, result.partners, result.mix.lam


def test_each_partner_counts_with_its_own_weights() -> None:
    given = batch(1, weight=torch.tensor([1.0, 0.3, 0.3, 1.0, 0.5, 1.0]))
    method = make(CE, mix=BatchMix("mixup", COUNTS), rule="inverse")
    images, partners, lam = mixed(given)
    logits = method.classifier(images)
    by_class = ClassWeighting(COUNTS, "inverse").weight.float()
    expected = torch.zeros(())
    for rows, share in ((torch.arange(6), lam), (partners, 1 - lam)):
        targets = given.targets[rows]
        losses = CrossEntropyLoss()(logits, targets, reduction="none")
        expected = expected + (share * losses * by_class[targets] * given.weight[rows]).mean()
    torch.manual_seed(5)
    torch.testing.assert_close(method(given, START)["ce"], 0.4 * expected)


def test_spherefaces_annealing_counts_a_mixed_batch_once() -> None:
    term = LossTerm("sphereface", SphereFaceLoss(), takes="cosines and norms")
    method = make(term, head="cosine", scale=None, mix=BatchMix("mixup", COUNTS))
    method.train()
    for _ in range(3):
        method(batch(1), START)
    assert int(term.loss.iteration) == 3


def test_after_its_time_nothing_is_mixed() -> None:
    method, plain, given = make(CE, mix=BatchMix("mixup", COUNTS, until=0.5)), make(CE), batch(1)
    for progress, same in ((0.0, False), (0.49, False), (0.5, True)):
        method.before_step(progress)
        torch.manual_seed(5)
        assert torch.equal(method(given, START)["ce"], plain(given, START)["ce"]) == same


def test_beside_a_mix_the_contrast_has_two_views_of_its_own() -> None:
    method = make(CE, SUPCON, projection=ProjectionHead(32, 4), mix=BatchMix("cutmix", COUNTS))
    assert method.n_views == 3
    given = batch(3)
    views = torch.stack([method.projection(features(method, given.views[:, v])) for v in (1, 2)], dim=1)
    terms = method(given, START)
    torch.testing.assert_close(terms["supcon"], 0.6 * SUPCON.loss(views, given.targets))
    unmixed = CrossEntropyLoss()(method.classifier(given.views[:, 0]), given.targets)
    assert not torch.allclose(terms["ce"], 0.4 * unmixed)


def test_what_a_phase_of_the_generator_does_not_train_is_not_decayed_either() -> None:
    method = make(CE, generation=generation(0.5)).train()
    optimizer = torch.optim.SGD(method.parameters(), 0.1, momentum=0.9, weight_decay=0.5)
    for progress, idle in ((0.0, "transform"), (0.0, "transform"), (0.5, "contrast"), (0.75, "contrast")):
        method.before_step(progress)
        before = {name: value.clone() for name, value in method.generator.named_parameters()}
        sum(method(batch(1), torch.tensor(progress)).values()).backward()
        assert all(value.grad is not None for value in method.parameters()), "DDP needs them all"
        for parameter in method.frozen_parameters():
            parameter.grad = None
        optimizer.step()
        optimizer.zero_grad()
        kept = {name for name, value in method.generator.named_parameters() if torch.equal(value, before[name])}
        assert kept == {name for name in before if name.startswith(idle)}


# What does not go together


@pytest.mark.parametrize(
    ("term", "parts", "message"),
    [
        (CE, {"mix": BatchMix("mixup", COUNTS), "generation": generation()}, "images of one class each .*; got mixup"),
        (CE, {"generation": generation(stage=3)}, "a stage from 1 to 2 to generate .* got 3"),
        (CE, {"generation": generation(stage=0)}, "a stage from 1 to 2 to generate .* got 0"),
        (CE, {"generation": replace(generation(), generator=nn.Identity())}, "with idle_parameters; got Identity"),
        (LossTerm("ldam", LDAMLoss(COUNTS), 1.0, "cosines"), {}, "a cosine head for ldam; got a linear head"),
        (LossTerm("ce", CrossEntropyLoss(), 0.0), {}, "shares > 0; got 0 for ce"),
    ],
)
def test_what_does_not_go_together_says_why(term: LossTerm, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(term, **parts)
