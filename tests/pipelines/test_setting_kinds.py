"""Types in the words of a config file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any, Literal, get_type_hints

import pytest

from pipelines.config import COMMANDS
from pipelines.setting_kinds import kind_in_words


def hints(cls: type) -> Iterator[Any]:
    for hint in get_type_hints(cls).values():
        if isinstance(hint, type) and is_dataclass(hint):
            yield from hints(hint)
        else:
            yield hint


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_has_words(command: str) -> None:
    assert all(map(kind_in_words, hints(COMMANDS[command])))


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (bool, "true or false"),
        (Literal["linear", "cosine"] | None, "one of linear, cosine or null"),
        (float | Literal["drawn"], "a number or drawn"),
        (tuple[int, ...] | None, "a list, each a whole number or null"),
    ],
)
def test_words_of_a_type(hint: Any, words: str) -> None:
    assert kind_in_words(hint) == words
