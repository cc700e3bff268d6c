from __future__ import annotations

import logging

import pytest

from pipelines.config_groups import OptimizationConfig
from pipelines.optimization import base_learning_rate, learning_rate_rule, warn_of_epochs


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (OptimizationConfig(), "base 0.2 × 128 / 256"),
        (OptimizationConfig(opt="adamw", batch_size=64), "base 0.2 × 64 / 256 × 0.01 for AdamW"),
        (OptimizationConfig(base_lr=0.1, batch_size=512), "base 0.1 × 512 / 256"),
    ],
)
def test_the_rule_that_is_printed_gives_the_learning_rate(config: OptimizationConfig, rule: str) -> None:
    assert learning_rate_rule(config) == rule
    terms = rule.removeprefix("base ").removesuffix(" for AdamW").replace("×", "*")
    assert eval(terms) == pytest.approx(base_learning_rate(config))


def test_a_rate_that_is_given_has_no_rule() -> None:
    assert learning_rate_rule(OptimizationConfig(lr=0.1, opt="adamw")) == "as given"


@pytest.mark.parametrize(
    ("config", "default", "words"),
    [
        (OptimizationConfig(epochs=3, updates=10), 200, ["--epochs 3 changes nothing beside --updates 10"]),
        (OptimizationConfig(epochs=10, updates=10), 10, []),
        (OptimizationConfig(updates=10), 10, []),
        (OptimizationConfig(updates=10), 200, []),
        (OptimizationConfig(epochs=3), 200, []),
    ],
)
def test_epochs_beside_updates_are_said_to_change_nothing(
    config: OptimizationConfig, default: int, words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_epochs(config, default)
    assert [record.message for record in caplog.records] == words
