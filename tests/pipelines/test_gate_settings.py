"""Settings of the gates that cannot work, or change nothing, before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines import FilterConfig
from pipelines.judging import check_gates, warn_of_feature_updates
from rebalance.errors import InputError


@pytest.mark.parametrize(
    ("gates", "words"),
    [
        ({"hash_distance": 40}, "--hash-distance from 0 to 32"),
        ({"third_class": 0.2}, "--third-class from 0.5 to 1"),
        ({"text_quantile": 0.9}, "--text-quantile"),
        ({"floor": 1.1}, "--floor"),
        ({"distance_in": "clip"}, "no --clip"),
        ({"clip": Path("nowhere")}, "without config.json"),
    ],
)
def test_gates_that_cannot_work_are_refused(gates: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_gates(FilterConfig(**gates))


@pytest.mark.parametrize(
    ("updates", "run", "said"),
    [(60, "runs/a", True), (60, None, False), (FilterConfig.feature_updates, "runs/a", False)],
)
def test_a_length_of_a_training_that_is_not_made_is_told(
    updates: int, run: str | None, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_feature_updates(FilterConfig(feature_updates=updates), run)
    assert ("--feature-updates changes nothing: the gates take the features of runs/a" in caplog.text) == said
