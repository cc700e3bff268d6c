"""Flags that were given: settings that are not at their default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any


def flag_of(name: str) -> str:
    """The flag of a setting.

    Examples:
        >>> flag_of("val_fraction")
        '--val-fraction'
    """
    return "--" + name.replace("_", "-")


def given_flags(group: Any, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Flag → value, of the settings of a config or of a group that are not at their default.

    Args:
        group: The config, or the group.
        names: Which of its settings are looked at, in this order; all by default.
    """
    defaults = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(group)
    }
    looked_at = defaults if names is None else names
    return {flag_of(name): getattr(group, name) for name in looked_at if getattr(group, name) != defaults[name]}
