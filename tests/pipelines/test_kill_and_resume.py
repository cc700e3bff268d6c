"""Real kills at random moments: the same command goes on and ends like an undisturbed run."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

Start = Callable[[Sequence[str], Path], subprocess.Popen[str]]

GENERATOR = (
    "--generator-updates 30 --generator-batch-size 8 --generator-channels 8 16 --steps 4 --sampling-batch 16 "
    "--skip-gate distance --device cpu"
).split()
STABLE_DIFFUSION = (
    f"--generator stable-diffusion --checkpoint {Path(__file__).parents[1] / 'assets/tiny_sd'} --mode adapted "
    "--generator-updates 30 --generator-batch-size 4 --steps 8 --sampling-batch 8 --skip-gate distance --shards "
    "--shard-images 20 --format webp --device cpu"
).split()
TRAINING = "--batch-size 32 --model small_cnn --report-to none --device cpu --checkpoint-updates 7".split()
COMMANDS = {
    "train": (["train", "digits", "--updates", "120", *TRAINING], "runs/train/digits-balanced_mixup"),
    "synthesize": (
        ["synthesize", "digits", "--max-images", "150", "--feature-updates", "30", *GENERATOR],
        "runs/synthesize/digits",
    ),
    "stable-diffusion": (
        ["synthesize", "digits", "--max-images", "40", "--feature-updates", "30", *STABLE_DIFFUSION],
        "runs/synthesize/digits",
    ),
    "run": (
        ["run", "digits", "--seeds", "1", "--updates", "40", "--max-images", "60", *GENERATOR, *TRAINING],
        "runs/run/digits-balanced_mixup",
    ),
}
_DIFFERENT = {"environment.json", "history.csv", "report.html", "report.md", "report.json", ".lock"}
"""Files that hold times or the machine; everything else is to be the same."""


def results(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in _DIFFERENT
        and not {"journals", "checkpoints"} & set(path.relative_to(folder).parts)
    }


def run_to_the_end(start: Start, arguments: Sequence[str], folder: Path) -> float:
    """Seconds it took."""
    begin = time.monotonic()
    process = start(arguments, folder)
    output, error = process.communicate()
    assert process.returncode == 0, output + error
    return time.monotonic() - begin


def kill_again_and_again(start: Start, arguments: Sequence[str], folder: Path, kills: int, seconds: float) -> None:
    stream = random.Random(0)
    for _ in range(kills):
        process = start(arguments, folder)
        try:
            process.communicate(timeout=stream.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def check(command: str, start: Start, tmp_path: Path, kills: int) -> None:
    arguments, run = COMMANDS[command]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    seconds = run_to_the_end(start, arguments, whole)
    kill_again_and_again(start, arguments, broken, kills, seconds)
    run_to_the_end(start, arguments, broken)
    expected, found = results(whole / run), results(broken / run)
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        assert found[name] == content, name


@pytest.mark.parametrize(
    "command", ["train", *(pytest.param(name, marks=pytest.mark.slow) for name in ("synthesize", "run"))]
)
def test_three_kills(command: str, start: Start, tmp_path: Path) -> None:
    check(command, start, tmp_path, kills=1 if command == "run" else 2 if command == "synthesize" else 3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("command", list(COMMANDS))
def test_twenty_kills(command: str, start: Start, tmp_path: Path) -> None:
    check(command, start, tmp_path, kills=20)
