"""Values on the command line that their flags do not take, told in the words of `pipelines.setting_kinds`."""

from __future__ import annotations

import re
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pipelines.config_files import kinds_of, leaves
from pipelines.given_flags import flag_of
from pipelines.setting_kinds import kind_in_words
from rebalance.errors import InputError

_ALIASES = re.compile(r"aliases=\[([^]]*)\]")
_NUMBER = re.compile(r"-[\d.]")


def refuse_other_kinds(cls: type, words: Sequence[str]) -> None:
    """Say of a command line that cannot be parsed which value is not what its flag takes.

    Args:
        cls: The config of the command.
        words: The command line, without the command.

    Raises:
        InputError: There is such a value.
    """
    kinds = _kinds_by_flag(cls)
    for i, word in enumerate(words):
        name, _, value = word.partition("=")
        flag = name.replace("_", "-")
        if flag not in kinds or kinds[flag] is bool:
            continue
        hint = _without_none(kinds[flag])
        several = get_origin(hint) is tuple
        one = get_args(hint)[0] if several else hint
        given = [value] if value else _values(words[i + 1 :])[: None if several else 1]
        for text in given:
            if not _takes(one, text):
                raise InputError(f"{kind_in_words(one)} after {flag}", repr(text), "leave the flag out for the default")


def _kinds_by_flag(cls: type) -> dict[str, Any]:
    kinds, fields = kinds_of(cls), leaves(cls)
    found: dict[str, Any] = {}
    for name, field in fields.items():
        if "Positional" in str(field.type):
            continue
        aliases = _ALIASES.search(str(field.type))
        short = re.findall(r"-[\w-]+", aliases[1]) if aliases else []
        found |= dict.fromkeys([flag_of(name), *short], kinds[name])
    return found


def _values(words: Sequence[str]) -> list[str]:
    """The words before the next flag."""
    values: list[str] = []
    for word in words:
        if word.startswith("-") and not _NUMBER.match(word):
            break
        values.append(word)
    return values


def _without_none(hint: Any) -> Any:
    """What a flag takes: that it may be left out goes without saying."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    kinds = tuple(kind for kind in get_args(hint) if kind is not type(None))
    return Union[kinds]  # noqa: UP007  # of as many as there are


def _takes(hint: Any, text: str) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_takes(kind, text) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return text in map(str, get_args(hint))
    if hint in (str, Path):
        return True
    try:
        hint(text)
    except ValueError:
        return False
    return True
