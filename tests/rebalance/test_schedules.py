from __future__ import annotations

import math

import pytest
import torch

from rebalance.errors import InputError
from rebalance.schedules import Schedule, learning_rate_factor, parse_schedule


@pytest.mark.parametrize(
    ("text", "factors"),
    [
        ("none", [1, 1, 1, 1]),
        ("deferred", [0, 0, 1, 1]),
        ("deferred:0.8", [0, 0, 1, 1]),
        ("deferred:0", [1, 1, 1, 1]),
        ("deferred:1", [0, 0, 0, 1]),
        ("progressive", [0, 0.5, 0.8, 1]),
    ],
)
def test_factors_as_floats_and_as_tensors(text: str, factors: list[float]) -> None:
    schedule = parse_schedule(text)
    for progress, factor in zip((0.0, 0.5, 160 / 200, 1.0), factors, strict=True):
        assert schedule(progress) == factor
        as_tensor = schedule(torch.tensor(progress))
        assert as_tensor.dtype == torch.float32
        assert as_tensor.item() == pytest.approx(factor)


def test_names_go_there_and_back() -> None:
    for text in ("none", "progressive", "deferred:0.8", "deferred:0.25"):
        assert str(parse_schedule(text)) == text
    assert parse_schedule("deferred") == Schedule("deferred", 0.8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defered", "expected a schedule; got 'defered'; did you mean 'deferred:0.8'"),
        ("progressive:0.5", "expected a schedule; got 'progressive:0.5'"),
        ("", "expected a schedule"),
        ("deferred:1.2", r"expected deferred:S with S in \[0, 1\]; got 'deferred:1.2'"),
        ("deferred:late", r"S in \[0, 1\]"),
        ("deferred:nan", r"S in \[0, 1\]"),
    ],
)
def test_unknown_schedules_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_schedule(text)


def test_step_schedule_stretches_with_training() -> None:
    assert [learning_rate_factor(epoch, 200) for epoch in (0, 3, 4, 5, 159, 160, 179, 180)] == [
        0.2, 0.8, 1.0, 1.0, 1.0, 0.01, 0.01, 0.0001,
    ]  # fmt: skip
    assert [learning_rate_factor(epoch, 20, warmup_epochs=0) for epoch in (0, 15.9, 16, 17.5, 18)] == [
        1.0, 1.0, 0.01, 0.01, 0.0001,
    ]  # fmt: skip


def test_cosine_falls_from_the_warm_up_to_zero() -> None:
    at = [learning_rate_factor(epoch, 25, schedule="cosine") for epoch in (2, 5, 15, 25, 30)]
    assert at == pytest.approx([0.6, 1.0, 0.5, 0.0, 0.0], abs=1e-12)
    halfway = learning_rate_factor(10, 25, schedule="cosine")
    assert halfway == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_constant_stays_after_the_warm_up() -> None:
    assert [learning_rate_factor(epoch, 9, schedule="constant", warmup_epochs=2) for epoch in (0, 1, 8)] == [0.5, 1, 1]


@pytest.mark.parametrize("warmup", [0.5, 1.0, 1.5])
def test_a_short_warm_up_rises_by_fifths(warmup: float) -> None:
    at = [learning_rate_factor((i + 0.5) * warmup / 5, 9, schedule="constant", warmup_epochs=warmup) for i in range(6)]
    assert at == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_unknown_learning_rate_schedule_is_refused() -> None:
    with pytest.raises(InputError, match="expected a learning rate schedule; got 'cosin'; did you mean 'cosine'"):
        learning_rate_factor(9, 10, schedule="cosin")
