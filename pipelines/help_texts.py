"""Help texts in whole lines: tyro keeps the line breaks of indented docstrings, which fit no terminal's width."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from itertools import pairwise
from textwrap import dedent
from typing import get_type_hints

_HEADING = "\n\nAttributes:\n"


def groups_of(cls: type) -> dict[str, type]:
    """The fields of `cls` that are configs themselves, by name."""
    return {
        name: hint
        for name, hint in get_type_hints(cls).items()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
    }


def join_help_lines(cls: type) -> None:
    """Put the help texts of a config's fields, and of its groups' fields, into the class's docstring, a line each."""
    if _HEADING in (cls.__doc__ or ""):
        return
    for group in groups_of(cls).values():
        join_help_lines(group)
    texts = "\n".join(f"    {name}: {text}" for name, text in _help_texts(cls))
    if texts:
        cls.__doc__ = f"{inspect.getdoc(cls)}{_HEADING}{texts}\n"


def _help_texts(cls: type) -> Iterator[tuple[str, str]]:
    """The fields that have a docstring, with it in one line."""
    try:
        source = inspect.getsource(cls)
    except OSError:  # typed into an interpreter
        return
    (definition,) = ast.parse(dedent(source)).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in pairwise(definition.body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, " ".join(text.split())
