"""Help texts fill the lines of any terminal."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cli import main
from pipelines.config import COMMANDS
from pipelines.help_texts import join_help_lines

TEXT = 27
"""Column that help texts begin at."""


def shown(command: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("command", ["run", "synthesize"])
def test_no_line_ends_before_it_is_full(
    command: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    room = columns - TEXT - 2
    pairs = 0
    for line, following in pairwise(shown(command, columns, monkeypatch, capsys)):
        text, words = line[TEXT:-2].rstrip(), following[TEXT:-2].split()
        if text and words and following[1:TEXT].isspace() and line[TEXT - 2 : TEXT].isspace():
            assert len(text) + 1 + len(words[0]) > room, (line, following)
            pairs += 1
    assert pairs > 50


def test_joined_twice_they_are_as_joined_once() -> None:
    cls = COMMANDS["inspect"]
    join_help_lines(cls)
    once = cls.__doc__
    join_help_lines(cls)
    assert cls.__doc__ == once
    assert (once or "").count("Attributes:") == 1
