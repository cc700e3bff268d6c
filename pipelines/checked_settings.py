"""Settings as Python gives them: brought to the kind that their field holds, or refused by the field's name."""

from __future__ import annotations

import dataclasses
import os
import reprlib
import types
from collections.abc import Hashable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pipelines.config_pairs import holds_pairs, pairs_of
from pipelines.setting_kinds import kind_in_words
from rebalance.errors import InputError


class CheckedSettings:
    """A config, or a group of settings, whose values are checked when it is made.

    Text becomes a path where one is held, a path text; one value, a list or another row of them becomes a tuple; a
    mapping becomes pairs NAME=VALUE; NumPy's numbers become Python's, and 1e4 a whole number where one is held.

    Raises:
        InputError: A value of another kind.
    """

    def __post_init__(self) -> None:
        cls: type = type(self)
        kinds = _kinds(cls)
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            given, kind = getattr(self, field.name), kinds[field.name]
            value = tuple(pairs_of(given)) if holds_pairs(field) and given is not None else _brought_to(kind, given)
            if not _is_of(kind, value):
                raise _refusal(cls, field, kind, given)
            if value is not given:
                object.__setattr__(self, field.name, value)


def check_config(config: object, cls: type) -> None:
    """Refuse what is no config of a function.

    Args:
        config: What the function was given.
        cls: The class of its configs.

    Raises:
        InputError: Anything but an object of it.
    """
    if not isinstance(config, cls):
        raise InputError(f"settings of class {cls.__name__}", reprlib.repr(config), f"write {_example(cls, config)}")


@cache
def _kinds(cls: Hashable) -> dict[str, Any]:
    return get_type_hints(cls)


def _choices(kind: Any) -> tuple[Any, ...]:
    """The kinds that a value may have."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _brought_to(kind: Any, value: Any) -> Any:
    choices = _choices(kind)
    if getattr(value, "ndim", None) == 0:  # one of NumPy's numbers
        value = value.item()
    several = next((choice for choice in choices if get_origin(choice) is tuple), None)
    if several is not None and value is not None and not isinstance(value, Mapping):
        items = (value,) if isinstance(value, str | bytes) or not isinstance(value, Iterable) else value
        return tuple(_brought_to(get_args(several)[0], item) for item in items)
    if int in choices and float not in choices and isinstance(value, float) and value.is_integer():
        return int(value)
    if Path in choices and isinstance(value, str):
        return Path(value)
    if str in choices and isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def _is_of(kind: Any, value: Any) -> bool:
    choices = _choices(kind)
    if len(choices) > 1:
        return any(_is_of(choice, value) for choice in choices)
    if get_origin(kind) is Literal:
        return any(value == word and type(value) is type(word) for word in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_of(get_args(kind)[0], item) for item in value)
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind)


def _refusal(cls: type, field: dataclasses.Field[Any], kind: Any, value: Any) -> InputError:
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        article = "an" if kind.__name__[0] in "EIO" else "a"
        expected, fix = f"{article} {kind.__name__}", f"write {field.name}={_example(kind, value, field.name)}"
    else:
        expected, fix = kind_in_words(kind).replace("null", "None"), _advice(field, kind, value)
    return InputError(f"{expected} for {cls.__name__}.{field.name}", reprlib.repr(value), fix)


def _advice(field: dataclasses.Field[Any], kind: Any, value: Any) -> str:
    for number in (int, float):
        try:
            if isinstance(value, str) and _is_of(kind, number(value)):
                return f"write {field.name}={number(value)!r}"
        except ValueError:
            continue
    if field.default is dataclasses.MISSING:
        return f"correct {field.name}"
    return f"the default is {field.name}={field.default!r}"


def _example(cls: type, value: object, setting: str | None = None) -> str:
    """How to make a config of a class from a value given in its place, by its field `setting` or the first needed."""
    kinds = _kinds(cls)
    needed = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    first = setting if setting in kinds else next(iter(needed), None)
    if first is None or not isinstance(value, str | Path):
        return f"{cls.__name__}(…)"
    kind = kinds[first]
    inner = _example(kind, value, first) if dataclasses.is_dataclass(kind) and isinstance(kind, type) else f"{value!r}"
    return f"{cls.__name__}({', '.join([f'{first}={inner}', *(f'{name}=…' for name in needed if name != first)])})"
