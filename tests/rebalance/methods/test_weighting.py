from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rebalance.errors import InputError
from rebalance.methods.weighting import ClassWeighting, DrawnShares
from rebalance.schedules import Schedule
from rebalance.weights import class_weights

COUNTS = [110, 40, 9, 2]
START, MIDDLE, END = torch.tensor(0.0), torch.tensor(0.5), torch.tensor(0.99)
EVERY = torch.arange(4)


@pytest.mark.parametrize("rule", ["none", "inverse", "sqrt-inverse", "effective-number"])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_weights_follow_the_rule_and_have_mean_one_over_the_images(rule: str, strength: float) -> None:
    weighting = ClassWeighting(COUNTS, rule, strength=strength)
    rows = torch.repeat_interleave(EVERY, torch.tensor(COUNTS))
    weight = weighting(rows, START)
    assert (weight.dtype, weight.shape) == (torch.float32, (161,))
    assert float(weight.double().mean()) == pytest.approx(1.0, rel=1e-6)
    ratio = class_weights(COUNTS, rule, strength=strength)
    torch.testing.assert_close(weighting(EVERY, START).double(), torch.from_numpy(ratio / (ratio @ COUNTS) * 161))


@settings(deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=2, max_size=30), st.data())
def test_the_mean_is_one_over_whatever_is_drawn(counts: list[int], data: st.DataObject) -> None:
    draws = data.draw(st.lists(st.integers(1, 1000), min_size=len(counts), max_size=len(counts)))
    shares = np.array(draws) / sum(draws)
    weighting = ClassWeighting(counts, "inverse", shares=shares)
    assert float(weighting.weight @ torch.from_numpy(shares)) == pytest.approx(1.0, rel=1e-12)


def test_the_mean_stays_one_while_a_samplers_rule_begins_to_act() -> None:
    plain, by_rule = np.array(COUNTS) / sum(COUNTS), np.full(4, 0.25)
    factors = np.array([0.0, 0.3, 0.5, 1.0])
    n_updates = 23  # of which 7 and 14 are below themselves as float32 shares of training
    weighting = ClassWeighting(COUNTS, "inverse", shares=DrawnShares(plain, by_rule, factors, n_updates, 7))
    for update in range(n_updates):
        f = factors[update // 7]
        drawn = torch.from_numpy((1 - f) * plain + f * by_rule)
        weight = weighting(EVERY, torch.tensor(update / n_updates)).double()
        assert float(weight @ drawn) == pytest.approx(1.0, rel=1e-6)
        torch.testing.assert_close(weight / weight[0], weighting.weight / weighting.weight[0], rtol=1e-6, atol=0)


def test_weights_are_kept_in_double_precision_and_not_saved() -> None:
    weighting = ClassWeighting(COUNTS, "inverse")
    assert weighting.weight.dtype == torch.float64
    assert weighting.state_dict() == {}


def test_a_deferred_rule_acts_from_its_start_on() -> None:
    weighting = ClassWeighting(COUNTS, "inverse", schedule=Schedule("deferred", 0.8))
    always = ClassWeighting(COUNTS, "inverse")
    ones = torch.ones(4)
    for progress, acting in ((0.0, False), (0.7999, False), (0.8, True), (160 / 200, True), (0.999, True)):
        weight = weighting(EVERY, torch.tensor(progress))
        torch.testing.assert_close(weight, always(EVERY, START) if acting else ones, rtol=0, atol=0)


def test_a_progressive_rule_grows_from_nothing_and_keeps_the_mean() -> None:
    weighting = ClassWeighting(COUNTS, "inverse", schedule=Schedule("progressive"))
    full = ClassWeighting(COUNTS, "inverse")(EVERY, START)
    for progress in (0.0, 0.25, 0.75):
        weight = weighting(EVERY, torch.tensor(progress))
        torch.testing.assert_close(weight, (1 - progress) + progress * full)
        assert float(weight.double() @ torch.tensor(COUNTS).double()) / 161 == pytest.approx(1.0, rel=1e-6)


def test_the_schedule_does_not_change_the_graph() -> None:
    weighting = ClassWeighting(COUNTS, "inverse", schedule=Schedule("deferred", 0.5))
    traced = torch.export.export(weighting, (EVERY, START)).module()
    for progress in (START, MIDDLE, END):
        torch.testing.assert_close(traced(EVERY, progress), weighting(EVERY, progress))


def test_custom_weights_go_by_class_name() -> None:
    weighting = ClassWeighting([10, 10], "custom", custom={"b": 3, "a": 1}, classes=["a", "b"])
    assert weighting(torch.tensor([1, 0, 1]), START).tolist() == [1.5, 0.5, 1.5]
    with pytest.raises(InputError, match="did you mean 'a'"):
        ClassWeighting([10, 10], "custom", custom={"aa": 3}, classes=["a", "b"])


def test_a_class_without_images_is_named() -> None:
    with pytest.raises(InputError, match="got 0 images of 'b'"):
        ClassWeighting([10, 0], "inverse", classes=["a", "b"])


@pytest.mark.parametrize(
    ("counts", "options", "nothing"),
    [
        (COUNTS, {"rule": "inverse"}, False),
        (COUNTS, {"rule": "none"}, True),
        ([5, 5], {"rule": "inverse"}, True),
        (COUNTS, {"rule": "inverse", "strength": 0.0}, True),
        (COUNTS, {"rule": "inverse", "schedule": Schedule("deferred", 1.0)}, True),
        (COUNTS, {"rule": "inverse", "schedule": Schedule("deferred", 0.99)}, False),
    ],
)
def test_weights_that_change_nothing_say_so(counts: list[int], options: dict, nothing: bool) -> None:
    assert ClassWeighting(counts, **options).changes_nothing == nothing
