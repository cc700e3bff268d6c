"""Values that a flag does not take: told in the project's words, and only those."""

from __future__ import annotations

import shlex

import pytest

import cli
from pipelines.config import COMMANDS
from pipelines.flag_kinds import refuse_misread
from rebalance.errors import InputError


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("train digits --updates ten", "a whole number after --updates\n  got 'ten'"),
        ("train digits --updates=ten", "a whole number after --updates\n  got 'ten'"),
        ("train digits --grad_accum_steps 1.5", "a whole number after --grad-accum-steps\n  got '1.5'"),
        ("train digits -b many", "a whole number after -b\n  got 'many'"),
        ("train digits --lr fast --epochs 3", "a number after --lr\n  got 'fast'"),
        ("train digits --kappa x", "a number or drawn after --kappa\n  got 'x'"),
        ("export runs/a --format zip", "one of pt2, onnx after --format\n  got 'zip'"),
        ("run digits --arms ce foo", "one of ce, rebalanced, replay, unfiltered, synthetic, feedback after --arms"),
        ("synthesize digits --skip-gate copy --skip-gate none", "third-class, text after --skip-gate\n  got 'none'"),
        ("synthesize digits --generator-channels 8 wide", "a whole number after --generator-channels\n  got 'wide'"),
    ],
)
def test_a_value_of_another_kind_is_one_error_in_plain_words(
    line: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(shlex.split(line)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: expected ")
    assert told in error
    assert "None" not in error
    assert "│" not in error


@pytest.mark.parametrize(
    ("line", "expected", "got"),
    [
        ("train digits --epochs", "a whole number after --epochs", "nothing"),
        ("train digits --epochs --lr 3", "a whole number after --epochs", "nothing"),
        ("train digits --epochs= --lr 3", "a whole number after --epochs", "nothing"),
        ("train digits --epochs= 3", "a whole number after --epochs", "nothing"),
        ("train digits --option", "text after --option", "nothing"),
        ("train digits -o", "text after -o", "nothing"),
        ("train digits --compile=true", "--compile without a value", "'true'"),
        ("train digits extra", "DATA alone beside the options", "'digits', 'extra'"),
        ("train digits -- extra", "DATA alone beside the options", "'digits', 'extra'"),
        ("train --image-size None digits --epochs abc", "a whole number after --epochs", "'abc'"),
        ("train digits --head None --seed x", "a whole number after --seed", "'x'"),
        ("train digits --head none", "one of linear, cosine after --head", "'none'"),
        ("train digits -j4 -babc", "a whole number after -b", "'abc'"),
        ("train digits --methd ldam", "an option of this command", "--methd"),
        ("train digits --methd=ldam", "an option of this command", "--methd"),
        ("train digits --no-comple", "an option of this command", "--no-comple"),
        ("train digits --epochs abc --methd ldam", "a whole number after --epochs", "'abc'"),
    ],
)
def test_what_is_missing_unknown_or_too_much_is_told_in_three_lines(
    line: str, expected: str, got: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(shlex.split(line)) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert (first, second) == (f"error: expected {expected}", f"  got {got}")
    assert third.startswith("  ")


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--methd", "did you mean --method? --help lists all"),
        ("--no-comple", "did you mean --no-compile? --help lists all"),
        ("--print-confg", "did you mean --print-config? --help lists all"),
        ("-epochs", "did you mean --epochs? --help lists all"),
        ("--no-compile=yes", "write --compile, or --no-compile"),
        ("-z", "--help lists them"),
        ("--tune", "--help lists them"),
    ],
)
def test_what_is_no_flag_is_answered_by_the_nearest_that_is(
    flag: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "digits", flag, "3"]) == 2
    assert capsys.readouterr().err.endswith(f"\n  {told}\n")


def test_values_that_flags_take_are_not_refused() -> None:
    words = "digits --updates 3 --lr -1 --kappa drawn --opt sgd -b 4 --experiment x --compile --loss ce --loss ldam:0.1"
    words += " --no-rsg --head None -j4 -b=8"
    refuse_misread(COMMANDS["train"], words.split())
    refuse_misread(COMMANDS["run"], ["digits", "--arms", "ce", "rebalanced", "--seed", "3"])
    refuse_misread(COMMANDS["predict"], ["runs/a", "1.jpg", "2.jpg"])
    with pytest.raises(InputError, match="a number after --lr; got 'x'"):
        refuse_misread(COMMANDS["train"], [*words.split(), "--lr", "x"])
