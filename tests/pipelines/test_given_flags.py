from __future__ import annotations

from pipelines import MixingConfig, TrainConfig
from pipelines.config_groups import DataConfig
from pipelines.given_flags import given_flags


def test_flags_that_were_given_come_with_their_values_and_those_at_their_default_do_not() -> None:
    assert given_flags(MixingConfig()) == {}
    given = MixingConfig(real_share=0.5, kappa=0.0)
    assert given_flags(given) == {"--real-share": 0.5, "--kappa": 0.0}
    assert given_flags(given, ("kappa", "synthetic_weight")) == {"--kappa": 0.0}


def test_settings_without_a_default_are_looked_at_only_where_they_are_named() -> None:
    config = TrainConfig(data=DataConfig(data="digits"), synthetic_set="replay")
    assert given_flags(config, ("synthetic_set",)) == {"--synthetic-set": "replay"}


def test_a_default_that_the_machine_gives_is_none_that_was_given() -> None:
    assert given_flags(DataConfig(data="digits"), ("workers", "many")) == {}
    assert given_flags(DataConfig(data="digits", workers=77), ("workers",)) == {"--workers": 77}
