from __future__ import annotations

import pytest

from pipelines.config_groups import OptimizationConfig
from pipelines.optimization import base_learning_rate, learning_rate_rule


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
