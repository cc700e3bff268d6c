"""Killed, without room or on several ranks: a synthesis with Stable Diffusion ends with the same files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import generators.lora_training
from generators.lora_training import AdaptationSettings
from pipelines import SynthesizeConfig, candidates, synthesize
from rebalance.errors import RunError

TINY_SD = Path(__file__).parents[1] / "assets" / "tiny_sd"
MODES = ("text", "image", "adapted")
Config = Callable[..., SynthesizeConfig]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but journals and what names the folder, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in ("environment.json", "config.yaml")
        and "journals" not in path.relative_to(folder).parts
    }


class StopError(Exception):
    """Stands for a kill."""


def stopping(function: Callable[..., Any], every: int) -> Callable[..., Any]:
    """`function`, which stops at every so-manieth call."""
    calls = 0

    def stop_or_call(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % every == 0:
            raise StopError
        return function(*arguments)

    return stop_or_call


@pytest.mark.parametrize("mode", MODES)
def test_interrupted_synthesis_ends_with_the_same_files(
    sd_config: Config,
    mode: str,
    sd_finished: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(candidates, "_write", stopping(candidates._write, 5))
    monkeypatch.setattr(generators.lora_training, "_step", stopping(generators.lora_training._step, 4))
    frequent = partial(AdaptationSettings, checkpoint_updates=2)
    monkeypatch.setattr("pipelines.stable_diffusion_plan.AdaptationSettings", frequent)
    stops = 0
    while stops < 9:
        try:
            synthesize(sd_config(tmp_path / "out", mode))
        except StopError:
            stops += 1
            continue
        break
    assert 1 <= stops < 9
    assert tree(tmp_path / "out") == tree(sd_finished[mode])


def test_a_full_disk_is_said_and_nothing_is_lost(
    sd_config: Config,
    sd_finished: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = candidates._write

    def write_or_fail(folder: Path, job: Any, *rest: Any) -> Any:
        if job.index == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, job, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(candidates, "_write", write_or_fail)
        with pytest.raises(RunError, match=r"No space left on device; once there is room, the same command goes on"):
            synthesize(sd_config(tmp_path / "out"))
    with pytest.raises(RunError, match="raise --max-gb"):
        synthesize(sd_config(tmp_path / "out", max_gb=1e-6))
    synthesize(sd_config(tmp_path / "out"))
    assert tree(tmp_path / "out") == tree(sd_finished["text"])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["text", "image"])
@pytest.mark.parametrize("n_ranks", [2, 4])
def test_ranks_make_the_files_of_one(
    sd_features: Path, n_ranks: int, mode: str, digit_folders: Path, sd_finished: dict[str, Path], tmp_path: Path
) -> None:
    words = f"--generator stable-diffusion --checkpoint {TINY_SD} --mode {mode} --steps 4 --sampling-batch 4"
    words += f" --budget explicit --count four=7 --count seven=6 --features {sd_features}"
    words += f" --skip-gate distance --skip-gate third-class --device cpu --out {tmp_path / 'out'}"
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n_ranks), "-m", "cli"]
    process = subprocess.run(
        [sys.executable, *ranks, "synthesize", str(digit_folders), *words.split()],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == 0, process.stdout
    made, expected = tree(tmp_path / "out"), tree(sd_finished[mode])
    assert made == expected
