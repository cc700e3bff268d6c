"""Numbers that are too small, or too large, to work with."""

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


def refuse_outside(ranges: Mapping[str, tuple[float, float, float]]) -> None:
    """Refuse numbers outside their range, and NaN, by their flags.

    Args:
        ranges: Flag → number, the least and the most that it may be.

    Raises:
        InputError: Such a number.
    """
    for flag, (value, least, most) in ranges.items():
        if not least <= value <= most:
            raise InputError(f"{flag} from {least} to {most}", str(value), "leave it out for the default")
