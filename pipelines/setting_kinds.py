"""What a setting may be, in words."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    type(None): "null",
}


def kind_in_words(hint: Any) -> str:
    """The values that a type allows.

    Examples:
        >>> kind_in_words(int | None), kind_in_words(Literal["exp", "step"]), kind_in_words(tuple[float, ...])
        ('a whole number or null', 'one of exp, step', 'a list, each a number')
    """
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else str(arguments[0])
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(kind_in_words, arguments))
    if get_origin(hint) is tuple:
        return f"a list, each {kind_in_words(arguments[0])}"
    return _WORDS[hint]
