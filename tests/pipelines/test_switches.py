"""Switches beside a recipe: what they replace, and what cannot go together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cli import main
from generators.rare_features import RareFeatureGenerator
from pipelines.composition import Composition, MixSpec, Problem, RareSpec, Switches
from pipelines.config_groups import ObjectiveConfig
from pipelines.loss_terms import LossSpec, parse_loss
from pipelines.recipes import build_method, parse_options
from rebalance.backbones import Backbone, SmallCNN
from rebalance.backbones.base import fill_stages
from rebalance.errors import InputError
from rebalance.methods.base import Method
from rebalance.methods.composed import ComposedMethod
from rebalance.methods.residual import ResidualMethod

COUNTS = np.array([40.0, 10.0, 2.0])


class OneStage(Backbone):
    """A backbone that has no inner stage."""

    def __init__(self) -> None:
        super().__init__()
        fill_stages(self, [nn.Conv2d(3, 4, 3)], [4])


def build(recipe: str, switches: Switches | None = None, backbone: Backbone | None = None, **options: Any) -> Method:
    problem = Problem(backbone or SmallCNN(width=8), COUNTS, COUNTS / 52, ("a", "b", "c"), switches or Switches())
    return build_method(recipe, problem, options)


def build_composed(recipe: str, switches: Switches, **options: Any) -> ComposedMethod:
    method = build(recipe, switches, **options)
    assert isinstance(method, ComposedMethod)
    return method


# What they replace


@pytest.mark.parametrize(
    ("given", "recipe"),
    [
        ({}, "balanced_mixup"),
        ({"rsg": True}, "balanced_softmax"),
        ({"loss": ("ldam",)}, "composed"),
        ({"loss": ("ldam",), "rsg": True}, "composed"),
        ({"method": "ce"}, "ce"),
    ],
)
def test_without_a_method_the_default_is_what_goes_with_the_rest(given: dict[str, Any], recipe: str) -> None:
    assert ObjectiveConfig(**given).recipe == recipe


def test_the_default_recipe_is_balanced_softmax_with_a_light_mixup() -> None:
    default = build_composed("balanced_mixup", Switches())
    assert [type(term.loss).__name__ for term in default.terms] == ["BalancedSoftmaxLoss"]
    assert default.mix is not None
    assert (default.mix.kind, default.mix.alpha, default.mix.probability, default.mix.until) == ("mixup", 0.2, 1, 0.9)
    assert build_composed("balanced_mixup", Switches(mix="none")).mix is None


def test_the_founding_combination_is_a_matter_of_switches() -> None:
    """Cosine head, RSG, 0.1 × LDAM with inverse-frequency weights + 0.9 × SupCon."""
    losses = (LossSpec("ldam", 0.1), LossSpec("supcon", 0.9))
    method = build_composed("composed", Switches(losses, {"rule": "inverse"}, "cosine", rare=True))
    assert [(term.name, term.share) for term in method.terms] == [("ldam", 0.1), ("supcon", 0.9)]
    assert method.classifier.head_name == "cosine"
    assert method.weighting.rule == "inverse"
    assert method.generation is not None
    assert (method.generation.start, method.generation.stage) == (0.8, 2)


def test_a_switch_replaces_one_part_of_a_recipe() -> None:
    assert build_composed("mixup_drw", Switches(mix="none")).mix is None
    mix = build_composed("ldam_drw", Switches(mix=MixSpec("cmo"))).mix
    assert mix is not None
    assert mix.kind == "cmo"
    method = build_composed("ldam_drw", Switches(weighting={"rule": "sqrt-inverse"}))
    assert (method.weighting.rule, method.weighting.schedule.kind) == ("sqrt-inverse", "none")
    assert [term.name for term in method.terms] == ["ldam"]


def test_rsg_true_keeps_the_generator_of_the_recipe() -> None:
    own = build_composed("rsg", Switches(rare=True), start=0.3, stage=1)
    given = build_composed("rsg", Switches(rare=RareSpec(0.6)), start=0.3, stage=1)
    assert own.generation is not None
    assert given.generation is not None
    assert (own.generation.start, own.generation.stage) == (0.3, 1)
    assert (given.generation.start, given.generation.stage) == (0.6, 2)


def test_the_centres_of_rsg_learn_as_the_optimiser_can_follow() -> None:
    for method in (build_composed("rsg", Switches()), build_composed("ce", Switches(rare=RareSpec(0.8)))):
        assert method.generation is not None
        assert method.generation.generator.center_gradient == "bounded"


def test_a_queue_may_start_full() -> None:
    for name in ("paco", "gpaco"):
        filled = [len(build(name, queue=24, queue_init=init).queue()[0]) for init in ("empty", "official")]
        assert filled == [0, 24]


def test_reslt_takes_the_settings_of_large_data() -> None:
    """ImageNet-LT's three branches, and iNaturalist's two."""
    for shares, n_branches in (({"tail_share": 0.22}, 3), ({"tail_share": 0.0}, 2)):
        method = build("reslt", head="conv", tau=0.7, fused_eps=1e-7, medium_share=0.8, **shares)
        assert isinstance(method, ResidualMethod)
        assert method.loss.groups.shape == (n_branches, 3)
        assert method.loss.fused_eps == 1e-7
        assert method.classifier.head_options == {"n_branches": n_branches, "tau": 0.7}
        assert method.predict(torch.zeros(2, 3, 8, 8)).shape == (2, 3)


def test_the_centres_of_the_generator_learn_slowly_or_as_in_the_original() -> None:
    for options, expected in (({}, "bounded"), ({"center_gradient": "exact"}, "exact")):
        method = build_composed("rsg", Switches(), **options)
        assert isinstance(method.generator, RareFeatureGenerator)
        assert method.generator.center_gradient == expected


def test_rsg_is_a_bare_flag(capsys: pytest.CaptureFixture[str]) -> None:
    words = "train digits --loss ldam:0.1 --loss supcon:0.9 --head cosine --rsg --rsg-start 0.5 --loss-rule inverse"
    assert main([*words.split(), "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "rsg: true" in printed
    assert "rsg_start: 0.5" in printed


def test_options_are_numbers_however_they_are_written() -> None:
    assert parse_options("reslt", {"fused_eps": "1e-7", "head": "conv"}) == {"fused_eps": 1e-7, "head": "conv"}
    spec = parse_loss("label-aware-smoothing:0.5:smooth-head=3e-1:power=2:shape=exp:to_others_only=true")
    options = {"smooth_head": 0.3, "power": 2.0, "shape": "exp", "to_others_only": True}
    assert spec == LossSpec("label_aware_smoothing", 0.5, options)


def test_what_a_composition_does_itself_is_no_option_of_a_loss() -> None:
    for name in ("weight", "weight_in_modulator"):
        with pytest.raises(InputError, match=f"an option of the loss focal; got '{name}'"):
            build("ce", Switches((LossSpec("focal", 1.0, {name: True}),)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("focal:1:detach_modulator=flase", "detach_modulator=bool; got detach_modulator=flase; its default is False"),
        ("focal:1:gamma=two", "gamma=float; got gamma=two; its default is 2.0"),
        ("focal:1:gamma", "NAME:SHARE:OPTION=VALUE; got 'focal:1:gamma'"),
        ("sphereface:1:margin=2.5", "margin=int; got margin=2.5; its default is 4"),
    ],
)
def test_an_option_of_another_type_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_loss(text)


# What cannot go together


@pytest.mark.parametrize(
    ("recipe", "switches", "options", "message"),
    [
        ("paco", {"losses": (LossSpec("ce"),)}, {}, "paco without --loss; got --loss, which paco has its own way of"),
        ("paco", {"mix": MixSpec("mixup")}, {}, "paco without --mix; got --mix, which .*; leave out --mix"),
        ("gpaco", {"head": "cosine"}, {}, "gpaco without --head"),
        ("bcl", {"rare": True}, {}, "bcl without --rsg"),
        ("reslt", {"weighting": {"rule": "inverse"}}, {}, "reslt without --loss-rule"),
        ("autoencoder", {"mix": MixSpec("mixup")}, {}, "autoencoder without --mix"),
        ("autoencoder", {"losses": (LossSpec("supcon"),)}, {}, "classification losses for the autoencoder"),
        ("supcon", {"losses": (LossSpec("ldam"),)}, {}, "supcon without --loss; .*`rebalance methods supcon`"),
        ("supcon", {}, {"loss": "supcon"}, "different losses; got supcon, supcon"),
        ("ldam", {"head": "linear"}, {}, "a cosine head for ldam; got a linear head; use --head cosine, or another"),
        ("ce", {"scale": 10.0}, {}, "--head cosine with --head-scale; got a linear head, which has no scale"),
        ("rsg", {"mix": MixSpec("cutmix")}, {}, "images of one class each .*; got cutmix, which mixes classes; leave"),
        ("rsg", {}, {"stage": 3}, "a stage from 1 to 2 to generate features after; got 3"),
        ("rsg", {}, {"loss": "paco"}, "a loss; got 'paco'"),
        ("weighted_ce", {}, {"rule": "custom"}, "counts alone; got custom; use --loss-rule custom with --class-weight"),
        ("composed", {}, {}, "--loss for the method composed; got none; name at least one"),
    ],
)
def test_parts_that_do_not_go_together_say_why(
    recipe: str, switches: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        build(recipe, Switches(**switches), **options)
    assert error.value.fix


def test_the_error_names_what_a_backbone_lacks() -> None:
    with pytest.raises(
        InputError, match=r"at least two stages for the rare-feature .*; got OneStage, which has 1; use"
    ):
        build("rsg", backbone=OneStage())
    build("ce", backbone=OneStage())


@pytest.mark.parametrize(
    ("recipe", "option"),
    [
        ("focal", "gamma=-1"),
        ("cb_focal", "gamma=-1"),
        ("arcface", "margin_rad=9"),
        ("sphereface", "margin=0"),
        ("supcon", "temperature=0"),
        ("supcon", "share=0"),
        ("supcon", "projection=0"),
        ("paco", "temperature=0"),
        ("paco", "alpha=-1"),
        ("paco", "projection=0"),
        ("paco", "momentum=2"),
        ("paco", "queue=0"),
        ("gpaco", "queue_init=foo"),
        ("gpaco", "label_smoothing=2"),
        ("bcl", "temperature=-1"),
        ("bcl", "beta=0"),
        ("reslt", "alpha=3"),
        ("reslt", "label_smoothing=-1"),
        ("reslt", "tail_share=-1"),
        ("reslt", "tau=0.3"),
        ("reslt", "head=foo"),
        ("rsg", "strength=-1"),
        ("rsg", "layout=foo"),
        ("rsg", "center_gradient=foo"),
        ("rsg", "n_centers=0"),
        ("rsg", "head_share=2"),
        ("rsg", "start=2"),
        ("ldam_drw", "defer_until=2"),
        ("ldam_drw", "cb_beta=1"),
        ("ldam", "max_margin=-1"),
        ("ldam", "scale=0"),
        ("cosface", "scale=0"),
        ("mixup_drw", "alpha=0"),
        ("mixup_drw", "until=2"),
        ("autoencoder", "stage=foo"),
        ("autoencoder", "pretraining=1"),
        ("autoencoder", "reconstruction_weight=0"),
    ],
)
def test_an_option_out_of_range_is_refused_before_anything_is_trained(recipe: str, option: str) -> None:
    name, _, value = option.partition("=")
    with pytest.raises(InputError, match=f"got .*{value}"):
        build(recipe, **parse_options(recipe, {name: value}))


def test_a_composition_without_switches_is_what_the_recipe_says() -> None:
    parts = Composition((LossSpec("ce"),), mix=MixSpec("mixup"))
    assert Switches().apply(parts) == parts
