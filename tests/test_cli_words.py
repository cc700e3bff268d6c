"""What the command line answers: words that are missing or out of place, and memory that is not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import cli

NEED_DATA = ("inspect", "resample", "synthesize", "train", "run")
NEED_RUN = ("retrain", "evaluate", "predict", "export")


@pytest.mark.parametrize("command", [*NEED_DATA, *NEED_RUN])
@pytest.mark.parametrize("options", [[], ["--print-config"]])
def test_a_command_without_its_argument_names_it_and_ends_with_2(
    command: str, options: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: expected {'DATA' if command in NEED_DATA else 'RUN'}")
    assert "\n  got none\n  name " in error


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["predict", "imgs"],
            "expected IMAGES\n  got none, neither in the file nor on the command line\n  name RUN and IM",
        ),
        (["predict"], "expected RUN and IMAGES\n"),
        (["evaluate"], "expected RUN\n"),
        (["export"], "expected RUN\n"),
        (["report"], "expected RUN\n"),
        (["train"], "expected DATA\n  got none, neither in the file nor on the command line\n  name it after"),
    ],
)
def test_the_argument_that_neither_file_nor_command_line_gives_is_named(
    words: Sequence[str], told: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("p.yaml").write_text("run: runs/a\n" if words == ["predict", "imgs"] else "{}\n")
    assert cli.main([*words, "--config", "p.yaml"]) == 2
    assert told in capsys.readouterr().err


def test_a_report_of_nothing_ends_with_2_and_methods_of_nothing_are_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report"]) == 2
    assert "expected a run folder" in capsys.readouterr().err
    assert cli.main(["methods"]) == 0


@pytest.mark.parametrize(("command", "usage"), [("evaluate", "RUN [DATA]"), ("methods", "[NAME]"), ("train", "DATA")])
def test_usage_tells_what_may_be_left_out(command: str, usage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("usage")]
    assert f"] {usage}" in line


@pytest.mark.parametrize("words", [["-q", "train", "digits"], ["--print-config", "-v", "train", "digits"]])
def test_common_options_may_come_before_the_command(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "--print-config"]) == 0
    assert "data: digits" in capsys.readouterr().out


def test_an_option_in_place_of_the_command_is_told_where_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--device", "cpu", "train", "digits"]) == 2
    assert "options follow the command" in capsys.readouterr().err


@pytest.mark.parametrize("rank", [None, "1"])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.0 GiB. GPU"), ": Tried to allocate 2.0 GiB\n"),
        (RuntimeError("[enforce fail] can't allocate memory: you tried to allocate 9 bytes."), ": you tried"),
        (MemoryError("Unable to allocate 7.28 TiB for an array with shape (9,)"), ": Unable to allocate 7.28 TiB\n"),
        (MemoryError(), "\n"),
    ],
)
def test_out_of_memory_says_what_takes_less(
    error: Exception, told: str, rank: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if rank is not None:
        monkeypatch.setenv("RANK", rank)

    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("pipelines.training.train_command", fail)
    assert cli.main(["train", "digits"]) == 1
    shown = capsys.readouterr().err
    assert f"out of memory{'' if rank is None else ' of rank 1'}{told}" in shown
    assert "--grad-accum-steps" in shown
    assert "--sampling-batch" in shown
    monkeypatch.setattr("pipelines.training.train_command", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train", "digits"])


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_an_interrupt_promises_to_go_on_where_something_is_saved(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    module, function = cli._FUNCTIONS[command]
    monkeypatch.setattr(f"{module}.{function}", interrupt)
    arguments = {"methods": [], "predict": ["runs/a", "b.jpg"]}.get(command, ["any"])
    assert cli.main(["-q", command, *arguments]) == 130
    goes_on = command in ("synthesize", "train", "retrain", "run")
    told = "interrupted; the same command goes on from what has been saved" if goes_on else "interrupted"
    assert capsys.readouterr().err == f"{told}\n"
