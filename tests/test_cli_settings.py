"""Settings on the command line: flags, files, and which of them wins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

import cli
from pipelines.config import COMMANDS
from pipelines.config_files import from_dict


@pytest.mark.parametrize("command", ["train", "synthesize", "run", "inspect"])
def test_printed_config_is_read_back(command: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "digits", "--imbalance-factor", "20", "--print-config"]) == 0
    text = capsys.readouterr().out
    config = from_dict(COMMANDS[command], yaml.safe_load(text))
    assert config.data.imbalance_factor == 20
    Path("settings.yaml").write_text(text)
    assert cli.main([command, "--config", "settings.yaml", "--print-config"]) == 0
    assert capsys.readouterr().out == text


def test_flags_win_over_the_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("settings.yaml").write_text("data: photos\nepochs: 7\nbatch-size: 9\n")
    assert cli.main(["train", "--config=settings.yaml", "--epochs", "8", "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["data"] == "photos"
    assert printed["optimization"]["epochs"] == 8
    assert printed["optimization"]["batch_size"] == 9


@pytest.mark.parametrize(
    ("words", "name", "values"),
    [
        ([], "tune", ["0.3:0.9", "1:0.8", "1:0.5"]),
        (["--tune", "0.5:0.8"], "tune", ["0.5:0.8"]),
        (["--tune", "0.3:0.9", "--tune", "0.5:0.8"], "tune", ["0.3:0.9", "0.5:0.8"]),
        (["--tune", "none"], "tune", ["none"]),
        (["--arms", "ce", "rebalanced"], "arms", ["ce", "rebalanced"]),
    ],
)
def test_a_list_of_flags_replaces_the_default(
    words: Sequence[str], name: str, values: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "digits", *words, "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)[name] == values


@pytest.mark.parametrize(
    ("words", "kappa"), [([], "drawn"), (["--kappa", "drawn"], "drawn"), (["--kappa", "0.1"], 0.1)]
)
def test_a_worth_is_a_number_or_by_draws(
    words: Sequence[str], kappa: float | str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "digits", *words, "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["mixing"]["kappa"] == kappa


def test_the_help_does_not_say_that_flags_are_added_to_a_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(repeatable, default: 0.3:0.9 1:0.8 1:0.5)" in words
    assert "appends to: 0.3" not in words


def test_lists_of_flags_replace_those_of_the_file_and_pairs_are_added(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("settings.yaml").write_text(
        "data: photos\ntune: ['1:1', '2:1']\nskip_gate: [flat]\nloss: [ldam]\noption: [a=1]\ncount: [tail=5]\n"
    )
    words = "--tune 1:1 --skip-gate copy --skip-gate hash --loss ce -o a=2 --count two=3".split()
    assert cli.main(["run", "--config", "settings.yaml", *words, "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["tune"] == ["1:1"]
    assert printed["filter"]["skip_gate"] == ["copy", "hash"]
    assert printed["objective"]["loss"] == ["ce"]
    assert printed["objective"]["option"] == ["a=1", "a=2"]  # the last wins
    assert printed["budget"]["count"] == ["tail=5", "two=3"]
    assert cli.main(["run", "--config", "settings.yaml", "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["tune"] == ["1:1", "2:1"]


def test_underscores_and_dashes_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "digits", "--batch_size", "9", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["optimization"]["batch_size"] == 9


def test_sharpness_is_a_matter_of_two_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "digits", "--sam", "0.1", "--sam-from", "0.75", "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)["optimization"]
    assert (printed["sam"], printed["sam_from"]) == (0.1, 0.75)


@pytest.mark.parametrize("words", [["train", "digits"], ["run", "digits"], ["retrain", "nowhere"]])
def test_every_command_that_trains_says_that_updates_win_over_epochs(
    words: Sequence[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--epochs", "3", "--updates", "10", "--device", "tpu"]) == 2
    assert "--epochs 3 changes nothing beside --updates 10" in capsys.readouterr().err


def test_a_file_of_another_command_is_named_as_such(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text("command: train\ndata: digits\nsynthetic: made\n")
    assert cli.main(["train", "--config", "config.yaml", "--print-config"]) == 0
    capsys.readouterr()
    assert cli.main(["run", "--config", "config.yaml"]) == 2
    error = capsys.readouterr().err
    assert "expected a file of `rebalance run`\n  got config.yaml, a file of `rebalance train`\n" in error
    assert "valid:" not in error


@pytest.mark.parametrize(
    ("line", "told"),
    [("command: [a]", "got command: ['a']"), ("command: 3", "got command: 3"), ("command: trian", "mean 'train'?")],
)
def test_a_file_of_no_known_command_is_told_the_known_ones(
    line: str, told: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("config.yaml").write_text(f"{line}\ndata: digits\n")
    assert cli.main(["train", "--config", "config.yaml"]) == 2
    error = capsys.readouterr().err
    assert "expected a command in config.yaml\n" in error
    assert told in error
    assert "valid: evaluate, export, inspect" in error


def test_a_file_without_a_word_for_its_command_is_one_of_any(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text("command: null\ndata: digits\n")
    assert cli.main(["train", "--config", "config.yaml", "--print-config"]) == 0
    assert "data: digits" in capsys.readouterr().out
