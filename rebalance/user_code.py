"""Where a warning belongs: the line of the user's code that called, whatever lies between."""

from __future__ import annotations

import sys

_BETWEEN = frozenset("rebalance generators pipelines logging contextlib sklearn imblearn joblib torch".split())


def user_level() -> int:
    """The `stacklevel` with which `warnings.warn`, in the function that asks, names the user's line."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    return level
