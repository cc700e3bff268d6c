"""Help texts in whole lines: tyro keeps the line breaks of indented docstrings, which fit no terminal's width."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from textwrap import dedent

from pipelines.config_files import groups_of


@cache
def join_help_lines(cls: type) -> None:
    """Put the help texts of a config's fields, and of its groups' fields, into the class's docstring, a line each."""
    for group in groups_of(cls).values():
        join_help_lines(group)
    texts = "\n".join(f"    {name}: {text}" for name, text in _help_texts(cls))
    if texts:
        cls.__doc__ = f"{inspect.getdoc(cls)}\n\nAttributes:\n{texts}\n"


def _help_texts(cls: type) -> Iterator[tuple[str, str]]:
    """The fields that have a docstring, with it in one line."""
    (definition,) = ast.parse(dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in pairwise(definition.body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, " ".join(text.split())
