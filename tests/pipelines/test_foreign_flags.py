"""Flags that other scripts have are answered by those that stand for them here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import get_type_hints

import pytest

from cli import main
from pipelines.config import COMMANDS
from pipelines.foreign_flags import FOREIGN


def flags(cls: type) -> set[str]:
    found = set()
    for name, hint in get_type_hints(cls).items():
        found |= flags(hint) if is_dataclass(hint) and isinstance(hint, type) else {"--" + name.replace("_", "-")}
    return found


def test_none_of_them_is_a_flag_here_and_their_hints_name_flags_that_are() -> None:
    ours = set().union(*map(flags, COMMANDS.values()))
    assert len(ours) > 50
    assert not ours & FOREIGN.keys()
    assert {flag for hint in FOREIGN.values() for flag in re.findall(r"--[\w-]+", hint)} <= ours


@pytest.mark.parametrize(
    ("words", "got", "hint"),
    [
        (["digits", "--lr-base", "0.1"], "--lr-base", "use --base-lr"),
        (["digits", "--lr_base=0.1"], "--lr_base", "use --base-lr"),
        (["--data-dir", "photos"], "--data-dir", "name DATA without a flag"),
        (["digits", "--mixed_precision", "bf16"], "--mixed_precision", "use --amp bf16"),
        (["digits", "--smoothing", "0.1"], "--smoothing", "--method label_aware_smoothing"),
        (["digits", "--resume_from_checkpoint", "a"], "--resume_from_checkpoint", "runs resume by themselves"),
        (["digits", "--resume", "runs/a"], "--resume runs/a", "runs resume by themselves"),
        (["digits", "--resume=runs/a", "--seed", "1"], "--resume=runs/a", "runs resume by themselves"),
    ],
)
def test_the_flag_that_stands_for_it_is_named(
    words: Sequence[str], got: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert f"got {got}" in error
    assert hint in error


@pytest.mark.parametrize("words", [["--resume", "digits"], ["digits", "--resume", "--seed", "1"]])
def test_resume_before_data_is_no_path(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words, "--print-config"]) == 0
    assert "data: digits" in capsys.readouterr().out
