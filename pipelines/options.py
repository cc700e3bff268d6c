"""Options of a function by name: its keyword arguments, read from text by the type of their default."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from rebalance.errors import InputError, nearest


def options_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only arguments of `function` with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def read_options(name: str, defaults: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """Options from text, checked by name and by the type of their default.

    Args:
        name: Whose options they are, for messages.
        defaults: All options with their defaults.
        texts: Those that are given.

    Raises:
        InputError: An unknown option, or a value of another type.
    """
    options: dict[str, Any] = {}
    for key, text in texts.items():
        option = key.replace("-", "_")
        if option not in defaults:
            if not defaults:
                raise InputError(f"no options: {name} has none", repr(key), f"leave out -o {key}=…")
            raise InputError(f"an option of {name}", repr(key), nearest(option, defaults))
        options[option] = read_value(option, text, defaults[option])
    return options


def read_value(name: str, text: str, default: Any) -> Any:
    """The value of one option from text; where the default is None, a number.

    Raises:
        InputError: A value of another type than the default's.
    """
    kind = float if default is None else type(default)
    if kind is str:
        return text
    try:
        value = float(text) if kind is float else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        value = None
    if type(value) is not kind:
        raise InputError(f"{name}={kind.__name__}", f"{name}={text}", f"its default is {default!r}")
    return value
