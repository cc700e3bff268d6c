from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch.utils.data import DataLoader, TensorDataset

from rebalance.errors import InputError
from rebalance.samplers import EpochSampler
from rebalance.schedules import Schedule

COUNTS = np.array([500, 120, 40, 9, 1])
LABELS = np.random.default_rng(7).permutation(np.repeat(np.arange(5), COUNTS))


def drawn(sampler: EpochSampler, epoch: int = 0) -> np.ndarray:
    return np.bincount(LABELS[sampler.epoch_order(epoch)], minlength=5)


def test_rule_none_is_a_shuffle() -> None:
    sampler = EpochSampler(LABELS)
    order = list(sampler)
    assert sorted(order) == list(range(LABELS.size))
    assert order != sorted(order)
    assert all(type(row) is int for row in order[:3])


def test_a_shuffle_mixes_rows_of_one_class() -> None:
    order = EpochSampler(np.zeros(20_000, int), seed=3).epoch_order(0)
    steps = np.abs(np.diff(order))
    assert abs(np.corrcoef(np.arange(order.size), order)[0, 1]) < 0.03
    assert steps.mean() == pytest.approx(20_000 / 3, rel=0.03)  # of two uniform places


def test_the_order_is_a_function_of_labels_seed_and_epoch() -> None:
    first, second = EpochSampler(LABELS, rule="inverse", seed=5), EpochSampler(LABELS, rule="inverse", seed=5)
    torch.manual_seed(0)
    np.random.seed(0)
    list(second)
    second.set_epoch(9)
    first.set_epoch(9)
    assert list(first) == list(second) == first.epoch_order(9).tolist()
    assert list(EpochSampler(LABELS, rule="inverse", seed=6)) != list(EpochSampler(LABELS, rule="inverse", seed=5))
    assert first.epoch_order(0).tolist() != first.epoch_order(1).tolist()


def test_global_random_state_is_neither_read_nor_moved() -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    list(EpochSampler(LABELS, rule="inverse"))
    after = np.random.rand(), torch.rand(1).item()
    np.random.seed(1)
    torch.manual_seed(1)
    assert after == (np.random.rand(), torch.rand(1).item())


@pytest.mark.parametrize("rule", ["none", "inverse", "sqrt-inverse", "effective-number", "custom"])
@pytest.mark.parametrize("exponent", [0.3, 1.0])
def test_expected_counts_are_those_of_weighted_images(rule: str, exponent: float) -> None:
    names = ["a", "b", "c", "d", "e"]
    custom = {"a": 1.0, "b": 2.0, "c": 1.0, "d": 9.0, "e": 4.0} if rule == "custom" else None
    sampler = EpochSampler(LABELS, rule=rule, exponent=exponent, custom=custom, classes=names, num_samples=1000)
    base = {
        "none": lambda n: 1.0,
        "inverse": lambda n: 1 / n,
        "sqrt-inverse": lambda n: n**-0.5,
        "effective-number": lambda n: (1 / 500) / (1 - (1 - 1 / 500) ** n),
    }
    image = [custom[a] ** exponent if custom else base[rule](n) ** exponent for a, n in zip(names, COUNTS, strict=True)]
    total = sum(n * w for n, w in zip(COUNTS, image, strict=True))
    reference = [1000 * n * w / total for n, w in zip(COUNTS, image, strict=True)]
    np.testing.assert_allclose(sampler.expected_counts(), reference, rtol=1e-9)
    assert np.abs(drawn(sampler) - reference).max() < 1


def test_exponents_0_and_1_are_the_two_known_samplers() -> None:
    plain = EpochSampler(LABELS, rule="inverse", exponent=0)
    np.testing.assert_array_equal(drawn(plain), COUNTS)
    assert plain.epoch_order(0).tolist() == EpochSampler(LABELS).epoch_order(0).tolist()
    np.testing.assert_array_equal(drawn(EpochSampler(LABELS, rule="inverse", num_samples=5000)), [1000] * 5)


def test_class_frequencies_over_epochs_follow_the_rule() -> None:
    sampler = EpochSampler(LABELS, rule="sqrt-inverse", num_samples=37, seed=2)
    total = sum(drawn(sampler, epoch) for epoch in range(400))
    assert chisquare(total, sampler.expected_shares() * total.sum()).pvalue > 0.01


def test_members_of_a_class_are_drawn_evenly_over_epochs() -> None:
    sampler = EpochSampler(LABELS, rule="inverse", num_samples=300, seed=1)
    times = sum(np.bincount(sampler.epoch_order(epoch), minlength=LABELS.size) for epoch in range(200))
    for c in range(3):
        assert chisquare(times[c == LABELS]).pvalue > 0.001


def test_places_of_a_class_in_the_epoch_are_even() -> None:
    sampler = EpochSampler(LABELS, rule="inverse", num_samples=1000, seed=1)
    places = np.concatenate([np.flatnonzero(LABELS[sampler.epoch_order(epoch)] == 4) for epoch in range(50)])
    assert chisquare(np.histogram(places, bins=10, range=(0, 1000))[0]).pvalue > 0.001


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.sampled_from(["owl", "newt", "lynx", "a b", "ñandú"]), min_size=1, max_size=60),
    rule=st.sampled_from(["none", "inverse", "sqrt-inverse", "effective-number"]),
    exponent=st.floats(0, 3),
    num_samples=st.integers(1, 300),
    seed=st.integers(0, 2**63),
)
def test_any_labels_give_even_draws(labels: list[str], rule: str, exponent: float, num_samples: int, seed: int) -> None:
    sampler = EpochSampler(labels, rule=rule, exponent=exponent, num_samples=num_samples, seed=seed)
    order = sampler.epoch_order(4)
    assert order.size == len(sampler) == num_samples
    times = np.bincount(order, minlength=len(labels))
    names = np.array(labels)
    for c, name in enumerate(sampler.classes):
        of_class = times[names == name]
        assert of_class.max() - of_class.min() <= 1
        assert abs(of_class.sum() - sampler.expected_counts(4)[c]) < 1 + 1e-6


def test_deferred_schedule_draws_plainly_until_it_starts() -> None:
    sampler = EpochSampler(LABELS, rule="inverse", schedule="deferred:0.8", epochs=10)
    np.testing.assert_array_equal(drawn(sampler, 7), COUNTS)
    assert sampler.epoch_order(7).tolist() == EpochSampler(LABELS).epoch_order(7).tolist()
    np.testing.assert_array_equal(drawn(sampler, 8), [134] * 5)
    np.testing.assert_allclose(sampler.expected_counts(8), [134] * 5)


def test_progressive_schedule_mixes_shares_linearly() -> None:
    sampler = EpochSampler(LABELS, rule="inverse", schedule=Schedule("progressive"), epochs=4)
    plain, full = COUNTS / 670, np.full(5, 0.2)
    for epoch in range(6):
        f = min(epoch / 4, 1)
        np.testing.assert_allclose(sampler.expected_shares(epoch), (1 - f) * plain + f * full)


def test_a_class_without_rows_is_expected_no_draw() -> None:
    sampler = EpochSampler([0, 0, 3], rule="inverse", classes=["a", "b", "c", "d", "e"], num_samples=4)
    np.testing.assert_allclose(sampler.expected_counts(), [2, 0, 0, 2, 0])
    assert set(sampler) == {0, 1, 2}
    custom = EpochSampler(
        [0, 1], rule="custom", custom={"a": 1, "b": 3, "c": 5}, classes=["a", "b", "c"], num_samples=4
    )
    np.testing.assert_allclose(custom.expected_counts(), [1, 3, 0])


def test_string_labels_draw_as_their_ids_do() -> None:
    names = np.array(["apple", "bear", "cat", "dog", "elk"])[LABELS]
    by_name = EpochSampler(names, rule="inverse")
    assert by_name.classes == ("apple", "bear", "cat", "dog", "elk")
    assert list(by_name) == list(EpochSampler(LABELS, rule="inverse"))


@pytest.mark.parametrize("consumed", [0, 1, 64, 669, 670])
def test_resume_in_the_middle_yields_the_rest(consumed: int) -> None:
    sampler = EpochSampler(LABELS, rule="inverse", seed=11)
    sampler.set_epoch(3)
    whole = list(sampler)
    for _ in range(consumed // 64):
        sampler.consumed(64)
    sampler.consumed(consumed % 64)
    resumed = EpochSampler(LABELS, rule="inverse", seed=0)
    resumed.load_state_dict(sampler.state_dict())
    resumed.set_epoch(3)  # as loops do at the head of an epoch: still the middle of it
    assert list(resumed) == list(sampler) == whole[consumed:]
    assert len(resumed) == LABELS.size
    resumed.set_epoch(4)
    assert list(resumed) == EpochSampler(LABELS, rule="inverse", seed=11).epoch_order(4).tolist()


def test_consumed_beyond_the_epoch_is_the_end_of_it() -> None:
    sampler = EpochSampler([0, 1, 1])
    sampler.consumed(4)
    assert list(sampler) == []
    place = {"seed": 0, "epoch": 0, "consumed": 3, "num_samples": 3}
    assert sampler.state_dict() == {**place, "drawn_by": sampler.drawn_by()}


def test_state_of_another_length_is_refused() -> None:
    state = EpochSampler([0, 1, 1]).state_dict()
    with pytest.raises(InputError, match=r"expected the state of a sampler with 2 draws .*; got one with 3"):
        EpochSampler([0, 1]).load_state_dict(state)


def test_loader_with_workers_sees_the_order() -> None:
    sampler = EpochSampler(LABELS, rule="inverse")
    loader = DataLoader(TensorDataset(torch.arange(LABELS.size)), batch_size=64, sampler=sampler, num_workers=1)
    assert torch.cat([rows for (rows,) in loader]).tolist() == list(sampler)


def test_a_hundred_thousand_classes_of_one_image() -> None:
    sampler = EpochSampler(np.arange(100_000), rule="inverse")
    assert np.array_equal(np.sort(sampler.epoch_order(0)), np.arange(100_000))


@settings(max_examples=5, deadline=None)
@given(n_classes=st.integers(90_000, 100_000), seed=st.integers(0, 99))
def test_many_classes_with_few_images(n_classes: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, n_classes, 150_000)
    labels[:n_classes] = np.arange(n_classes)
    sampler = EpochSampler(labels, rule="inverse", num_samples=2 * n_classes, seed=seed)
    order = sampler.epoch_order(0)
    assert (np.bincount(labels[order], minlength=n_classes) == 2).all()


def test_rows_beyond_2_to_24_are_drawn() -> None:
    labels = torch.zeros(2**24 + 5, dtype=torch.uint8)
    labels[-5:] = 1
    sampler = EpochSampler(labels, rule="inverse", num_samples=1000)
    rows = np.array(list(sampler))
    assert np.array_equal(np.bincount(rows[rows >= 2**24] - 2**24), [100] * 5)
    head = rows[rows < 2**24]
    assert np.unique(head).size == 500
    assert (head > 2**23).sum() == pytest.approx(250, abs=50)


def test_an_epoch_holds_no_more_than_its_members_and_a_chunk() -> None:
    labels = np.random.default_rng(0).integers(0, 100, 2_000_000)
    sampler = EpochSampler(labels, rule="inverse")
    tracemalloc.start()
    for _ in sampler.chunks():
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20  # of which 16 MiB are freed before a draw


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "invers"}, "expected a weight rule out of .*; got 'invers'; did you mean 'inverse'"),
        ({"exponent": -1}, "expected a finite strength >= 0"),
        ({"exponent": float("nan")}, "expected a finite strength >= 0"),
        ({"num_samples": 0}, "num_samples as a whole number from 1"),
        ({"num_samples": 2.5}, "num_samples as a whole number from 1"),
        ({"schedule": "defered:0.8", "epochs": 5}, "did you mean 'deferred:0.8'"),
        (
            {"schedule": "progressive"},
            "expected epochs beside a schedule; got schedule 'progressive' alone; pass epochs=",
        ),
        ({"schedule": "deferred:0.8", "epochs": 0}, "epochs as a whole number of at least 1"),
        ({"seed": -1}, "seed as a whole number of at least 0"),
        ({"seed": 1.0}, "seed as a whole number"),
        ({"rule": "effective-number", "cb_beta": 1.0}, r"cb_beta in \[0, 1\)"),
        ({"rule": "custom"}, "expected a weight for every class by its name; got none"),
        ({"rule": "custom", "custom": {"0": 1.0, "2": 1.0}}, "expected weights for known classes; got '2'"),
        ({"rule": "custom", "custom": {"0": 1.0}}, "got none for '1'"),
        ({"classes": ["a"]}, "expected class ids below the 1 classes; got label 1"),
    ],
)
def test_bad_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EpochSampler([0, 0, 1], **options)


@pytest.mark.parametrize("epoch", [-1, 0.5, "1"])
def test_bad_epochs_are_refused(epoch: object) -> None:
    with pytest.raises(InputError, match="epoch as a whole number of at least 0"):
        EpochSampler([0, 1]).set_epoch(epoch)  # type: ignore[arg-type]


def test_importing_the_samplers_loads_no_other_framework() -> None:
    code = (
        "import sys, rebalance.samplers; "
        "print(*{'torchvision', 'sklearn', 'imblearn', 'pandas', 'scipy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "options", [{"schedule": "deferred:0.5", "epochs": 4}, {"exponent": 0.5}, {"custom": {"0": 2}}]
)
def test_options_of_a_rule_without_one_are_told(options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    EpochSampler([0, 0, 1], **options)
    assert "change nothing without a rule" in caplog.text
    caplog.clear()
    EpochSampler([0, 0, 1], rule="inverse", schedule="deferred:0.5", epochs=4, exponent=0.5)
    assert caplog.text == ""


def test_custom_weights_are_those_of_images_not_of_classes() -> None:
    sampler = EpochSampler([0] * 6 + [1] * 2, rule="custom", custom={"0": 1.0, "1": 4.0}, exponent=0.5)
    np.testing.assert_allclose(sampler.expected_shares(), [0.6, 0.4])  # 6 · 1 to 2 · 2


def test_deferred_alone_acts_in_the_last_fifth() -> None:
    sampler = EpochSampler([0] * 6 + [1] * 2, rule="inverse", schedule="deferred", epochs=10)
    assert [sampler.factor(epoch) for epoch in (7, 8)] == [0.0, 1.0]
