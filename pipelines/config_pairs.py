"""Pairs NAME=VALUE in configs: as text, as a mapping, or as a list of these."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from rebalance.errors import InputError

_PAIRS = re.compile(r"metavar=.\w+=\w+")


def holds_pairs(field: dataclasses.Field[Any]) -> bool:
    """Whether a setting is of pairs NAME=VALUE."""
    return _PAIRS.search(str(field.type)) is not None


def pairs_of(value: Any) -> list[str]:
    """The pairs in the value of such a setting.

    Raises:
        InputError: A name that is no text, or a value that is none.
    """
    if isinstance(value, Mapping):
        return [_pair(name, item) for name, item in value.items()]
    return [pair for item in value for pair in pairs_of(item)] if isinstance(value, list | tuple) else [str(value)]


def _pair(name: Any, item: Any) -> str:
    if getattr(name, "ndim", None) == 0:  # one of NumPy's numbers
        name = name.item()
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise InputError("names of pairs as text", f"{name!r}", "quote the name: YAML reads yes and no as truths")
    if item is None or isinstance(item, Mapping | list | tuple):
        raise InputError("one value for each name", f"{item!r} for {name!r}", "write name: value")
    return f"{name}={item}"
