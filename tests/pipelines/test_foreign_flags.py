"""Flags that other scripts have are answered by those that stand for them here."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from cli import main
from pipelines.config import COMMANDS
from pipelines.config_files import leaves
from pipelines.foreign_flags import FOREIGN


def flags(cls: type) -> set[str]:
    settings = leaves(cls).values()
    return {"--" + field.name.replace("_", "-") for field in settings if "Positional" not in str(field.type)}


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
        (["digits", "--learning_rate", "0.1"], "--learning_rate", "use --lr"),
        (["digits", "--pretrained"], "--pretrained", "use --weights FILE"),
        (["digits", "--num-classes", "10"], "--num-classes", "the classes are those of DATA"),
        (["digits", "--mixup", "0.2"], "--mixup", "use --mix mixup:ALPHA"),
        (["digits", "--imgsz=64"], "--imgsz", "use --image-size"),
        (["--data", "photos"], "--data", "name DATA without a flag"),
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


@pytest.mark.parametrize(
    "words", [["train", "--resume", "digits", "--epochs"], ["evaluate", "runs/a", "--resume", "runs/b"]]
)
def test_resume_is_not_blamed_for_other_mistakes(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "without a value" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "flag", "hint"),
    [
        (["inspect", "digits", "--learning-rate", "0.1"], "--learning-rate", "use --lr"),
        (["evaluate", "runs/a", "--ckpt-path", "last"], "--ckpt-path", "runs resume by themselves"),
        (["report", "runs/a", "--data", "photos"], "--data", "name DATA without a flag"),
    ],
)
def test_a_command_is_not_told_of_what_another_has(
    words: Sequence[str], flag: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert f"got {flag}\n" in shown
    assert hint not in shown
