"""Times in words."""

from __future__ import annotations


def minutes_in_words(minutes: float) -> str:
    """A time in the unit that one thinks in.

    Examples:
        >>> minutes_in_words(0.2), minutes_in_words(12.34), minutes_in_words(600), minutes_in_words(6000)
        ('12 s', '12.3 minutes', '10 hours', '4 days')
    """
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    if minutes < 120:
        return f"{minutes:.1f} minutes"
    return f"{minutes / 60:.0f} hours" if minutes < 2 * 24 * 60 else f"{minutes / 60 / 24:.0f} days"
