"""Values that a flag does not take: told in the project's words, and only those."""

from __future__ import annotations

import shlex

import pytest

import cli
from pipelines.config import COMMANDS
from pipelines.flag_kinds import refuse_other_kinds
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
    ("line", "told"),
    [("train digits --lr", "--lr"), ("train digits extra", "extra"), ("train digits --batchsize 3", "--batch-size")],
)
def test_other_mistakes_are_told_as_before(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(shlex.split(line))
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert told in captured.out + captured.err


def test_values_that_flags_take_are_not_refused() -> None:
    words = "digits --updates 3 --lr -1 --kappa drawn --opt sgd -b 4 --experiment x --compile --loss ce --loss ldam:0.1"
    refuse_other_kinds(COMMANDS["train"], words.split())
    with pytest.raises(InputError, match="a number after --lr; got 'x'"):
        refuse_other_kinds(COMMANDS["train"], [*words.split(), "--lr", "x"])
