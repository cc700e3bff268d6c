"""Command lines that cannot be parsed: what is wrong, in the words of `pipelines.setting_kinds`."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pipelines.config_files import ARGUMENT, kinds_of, leaves
from pipelines.given_flags import flag_of
from pipelines.setting_kinds import kind_in_words
from rebalance.errors import InputError

_ALIASES = re.compile(r"aliases=\[([^]]*)\]")
_NUMBER = re.compile(r"-[\d.]")
_COMMON = ("--config", "--print-config", "--quiet", "--verbose", "--help")


@dataclass(frozen=True)
class _Flag:
    """What follows a flag: the type of each word, whether any number may follow or one, and whether None is one."""

    hint: Any
    several: bool
    optional: bool


@dataclass(frozen=True)
class _Given:
    """A flag, by its name here, and the words after it; `joined` to it by an equals sign or by nothing."""

    name: str
    values: Sequence[str]
    joined: bool


def refuse_misread(cls: type, words: Sequence[str]) -> None:
    """Say of a command line that cannot be parsed which flag is none, which lacks its value or has one of another kind.

    Args:
        cls: The config of the command.
        words: The command line, without the command.

    Raises:
        InputError: There is such a flag, or a word too many.
    """
    flags = _flags(cls)
    loose: list[str] = []
    for given in _read(flags, words):
        if isinstance(given, str):
            loose.append(given)
            continue
        flag = flags.get(given.name)
        if flag is None:
            raise InputError("an option of this command", given.name, _nearest_flag(given.name, flags))
        _check(given, flag)
    names = [found[1] for field in leaves(cls).values() if (found := ARGUMENT.search(str(field.type)))]
    if len(loose) > len(names) and not _takes_any_number(cls):
        raise InputError(
            f"{' and '.join(names)} alone beside the options" if names else "options alone",
            ", ".join(map(repr, loose)),
            "leave out the others; names with blanks need quotes",
        )


def _check(given: _Given, flag: _Flag) -> None:
    if flag.hint is bool:
        if given.joined:
            name = given.name.replace("--no-", "--", 1)
            raise InputError(
                f"{given.name} without a value", repr(given.values[0]), f"write {name}, or --no-{name[2:]}"
            )
        return
    kind, leave_out = f"{kind_in_words(flag.hint)} after {given.name}", "leave the flag out for the default"
    if not given.values and not flag.several:
        raise InputError(kind, "nothing", f"add it, or {leave_out}")
    for text in given.values:
        if not _takes(flag.hint, text) and not (flag.optional and text == "None"):
            raise InputError(kind, repr(text) if text else "nothing", leave_out)


def _flags(cls: type) -> dict[str, _Flag]:
    kinds, fields = kinds_of(cls), leaves(cls)
    found: dict[str, _Flag] = {}
    for name, field in fields.items():
        annotation, hint = str(field.type), _without_none(kinds[name])
        if "Positional" in annotation:
            continue
        aliases = _ALIASES.search(annotation)
        several = get_origin(hint) is tuple
        one = get_args(hint)[0] if several else hint
        flag = _Flag(one, several and "UseAppendAction" not in annotation, optional=hint != kinds[name])
        found |= dict.fromkeys([flag_of(name), *(re.findall(r"-[\w-]+", aliases[1]) if aliases else [])], flag)
        if hint is bool:
            found[flag_of(name).replace("--", "--no-", 1)] = flag
    return found


def _read(flags: Mapping[str, _Flag], words: Sequence[str]) -> Iterator[_Given | str]:
    """The flags of a command line, known or not, and the words that belong to none."""
    at = 0
    while at < len(words):
        word, after = words[at], _values(words[at + 1 :])
        at += 1
        if word == "--":
            yield from words[at:]
            return
        if not word.startswith("-") or _NUMBER.match(word):
            yield word
            continue
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        if name[:2] in flags and len(name) > 2:  # -b64
            name, equals, value = name[:2], "=", word[2:].removeprefix("=")
        flag = flags.get(name)
        if equals or flag is None or flag.hint is bool:
            yield _Given(name, [value] if equals else [], bool(equals))
            continue
        taken = after if flag.several else after[:1]
        at += len(taken)
        yield _Given(name, taken, joined=False)


def _nearest_flag(name: str, flags: Mapping[str, _Flag]) -> str:
    known = {flag.lstrip("-"): flag for flag in [*flags, *_COMMON]}
    close = difflib.get_close_matches(name.lstrip("-"), known, n=1, cutoff=0.7)
    return f"did you mean {known[close[0]]}? --help lists all" if close else "--help lists them"


def _takes_any_number(cls: type) -> bool:
    """Whether one of the arguments without a flag is a list."""
    kinds = kinds_of(cls)
    return any(
        "Positional" in str(field.type) and get_origin(kinds[name]) is tuple for name, field in leaves(cls).items()
    )


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
