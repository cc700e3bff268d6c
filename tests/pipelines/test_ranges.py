from __future__ import annotations

import pytest

from pipelines.ranges import refuse_below
from rebalance.errors import InputError


@pytest.mark.parametrize("value", [None, 1, 1.0, 2, float("inf")])
def test_enough_or_nothing_passes(value: float | None) -> None:
    refuse_below(1, {"--a": value})


@pytest.mark.parametrize("value", [0, 0.99, -1, float("nan")])
def test_too_little_is_named_by_its_flag(value: float) -> None:
    with pytest.raises(InputError, match=f"--b of at least 1; got {value}; leave it out for the default"):
        refuse_below(1, {"--a": 1, "--b": value})
