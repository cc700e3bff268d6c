"""What methods there are: for each its options, its paper, when to use it, and which switches it takes."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipelines.composition import SWITCH_FLAGS
from pipelines.config import MethodsConfig
from pipelines.console import print_table, say
from pipelines.options import options_of
from pipelines.recipes import RECIPES, TAKES
from pipelines.second_stages import SECOND_STAGES
from rebalance.errors import InputError, nearest


@dataclass(frozen=True)
class Option:
    """An option of a method."""

    name: str
    default: Any
    help: str


@dataclass(frozen=True)
class MethodDescription:
    """A method, from its docstring and its signature.

    Args:
        name: For --method.
        command: `train` (and so `run`), or `retrain`.
        summary: One line.
        details: What else there is to say.
        paper: Reference, or "".
        when: When to use it.
        options: For -o.
        switches: Flags that replace its parts.
    """

    name: str
    command: Literal["train", "retrain"]
    summary: str
    details: str
    paper: str
    when: str
    options: tuple[Option, ...]
    switches: tuple[str, ...]


def list_methods() -> list[MethodDescription]:
    """All methods, second stages last."""
    first = [_describe(name, "train", RECIPES[name], _switches(name)) for name in RECIPES]
    return first + [_describe(name, "retrain", SECOND_STAGES[name], ()) for name in SECOND_STAGES]


def find_methods(name: str) -> list[MethodDescription]:
    """The methods of this name: logit_adjustment is both a recipe and a second stage.

    Raises:
        InputError: No such method.
    """
    methods = list_methods()
    wanted = name.replace("-", "_")
    found = [method for method in methods if method.name == wanted]
    if not found:
        raise InputError("a method", repr(name), nearest(wanted, {method.name for method in methods}))
    return found


def _switches(name: str) -> tuple[str, ...]:
    taken = TAKES.get(name, tuple(SWITCH_FLAGS))
    return tuple(SWITCH_FLAGS[switch] for switch in taken)


def _describe(
    name: str, command: Literal["train", "retrain"], function: Callable[..., Any], switches: tuple[str, ...]
) -> MethodDescription:
    text = inspect.getdoc(function) or ""
    body, _, arguments = text.partition("\n\nArgs:\n")
    parts = {"Paper": "", "When": ""}
    details = []
    for paragraph in re.split(r"\n\n|\n(?=Paper: |When: )", body):
        label, separator, rest = paragraph.partition(": ")
        if separator and label in parts:
            parts[label] = _one_line(rest)
        else:
            details.append(_one_line(paragraph))
    helps = {
        match[1]: _one_line(match[2])
        for match in re.finditer(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, flags=re.MULTILINE)
    }
    options = tuple(Option(key, default, helps.get(key, "")) for key, default in options_of(function).items())
    return MethodDescription(
        name=name,
        command=command,
        summary=details[0],
        details=" ".join(details[1:]),
        paper=parts["Paper"],
        when=parts["When"],
        options=options,
        switches=switches,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def methods_command(config: MethodsConfig) -> None:
    """`rebalance methods`: all of them in a table, or one in full."""
    methods = list_methods() if config.name is None else find_methods(config.name)
    if config.json:
        say(json.dumps([asdict(method) for method in methods], indent=2, ensure_ascii=False))
    elif config.name is None:
        _print_overview(methods)
    else:
        for method in methods:
            _print(method)


def _print_overview(methods: Sequence[MethodDescription]) -> None:
    titles = {"train": "methods of train and run", "retrain": "second stages, of retrain"}
    for command, title in titles.items():
        rows = [[method.name, method.summary] for method in methods if method.command == command]
        print_table(title, ["--method", "what it is"], rows, words=True)
    say("`rebalance methods NAME` tells more of one.")


def _print(method: MethodDescription) -> None:
    say(f"rebalance {method.command} … --method {method.name}\n\n{method.summary}")
    for label, text in (("", method.details), ("When: ", method.when), ("Paper: ", method.paper)):
        if text:
            say(f"\n{label}{text}")
    if method.options:
        rows = [[option.name, _default(option.default), option.help] for option in method.options]
        say("")
        print_table("options", ["-o", "default", "meaning"], rows, words=True)
    if method.command == "train":
        say(f"\nSwitches: {', '.join(method.switches) or 'none, it has its own parts'}")
    say("")


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "(none)" if value == "" else str(value)
