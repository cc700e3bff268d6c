"""Numbers that are too small to work with."""

from __future__ import annotations

from collections.abc import Mapping

from rebalance.errors import InputError


def refuse_below(least: float, values: Mapping[str, float | None]) -> None:
    """Refuse numbers below `least`, and NaN, by their flags; None passes.

    Raises:
        InputError: Such a number.
    """
    for flag, value in values.items():
        if value is not None and not value >= least:
            raise InputError(f"{flag} of at least {least:g}", str(value), "leave it out for the default")
