"""Pairs NAME=VALUE, as config files and flags have them."""

from __future__ import annotations

import pytest
import yaml

from pipelines.config import RebalanceConfig
from pipelines.config_files import from_dict, parse_pairs
from rebalance.errors import InputError


def test_counts_may_be_a_mapping() -> None:
    config = from_dict(RebalanceConfig, {"data": "digits", "budget": {"budget": "explicit", "count": {"cat": 50}}})
    assert config.budget.count == ("cat=50",)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("{yes: 2, no: 1}", "names of pairs as text; got True; quote the name"),
        ("{1.5: 2}", "names of pairs as text; got 1.5"),
        ("{cat: }", "one value for each name; got None for 'cat'"),
        ("{cat: {dog: 1}}", "one value for each name; got {'dog': 1} for 'cat'"),
    ],
)
def test_pairs_that_yaml_reads_otherwise_are_refused(pairs: str, message: str) -> None:
    values = yaml.safe_load(f"data: digits\nbudget: {{budget: explicit, count: {pairs}}}")
    with pytest.raises(InputError, match=message):
        from_dict(RebalanceConfig, values)


def test_pairs_split_at_the_last_equals_sign() -> None:
    assert parse_pairs(("a=1", "b c=d=2", "a=3", "ü="), "-o") == {"a": "3", "b c=d": "2", "ü": ""}
    for pair in ("a", "=1"):
        with pytest.raises(InputError, match=f"-o NAME=VALUE; got '{pair}'"):
            parse_pairs((pair,), "-o")
