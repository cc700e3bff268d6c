"""What a command takes from accelerate and its launcher: devices and ranks, nothing that the loop does itself."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, DistributedType
from accelerate.tracking import GeneralTracker

from pipelines.console import warn_once
from pipelines.session import Session, start_session, start_tracking, track
from rebalance.errors import InputError

ROOT = Path(__file__).parents[2]
WITH_ACCELERATOR = """
from accelerate import Accelerator
from pipelines.session import start_session
Accelerator(cpu=True, {})
start_session("cpu")
"""


@pytest.mark.parametrize(
    ("name", "value", "flag"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", "--amp"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "--grad-accum-steps"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "--compile"),
    ],
)
def test_the_launcher_does_not_set_what_the_loop_does_and_the_user_is_told_once(
    name: str, value: str, flag: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    warn_once.cache_clear()
    monkeypatch.setenv(name, value)
    for _ in range(2):
        accelerator = start_session("cpu").accelerator
    assert (accelerator.mixed_precision, accelerator.gradient_accumulation_steps) == ("no", 1)
    assert accelerator.state.dynamo_plugin.backend.value == "NO"
    assert caplog.text.count(f"{name}={value} of the launcher is not used: {flag} says it") == 1
    assert os.environ[name] == value


def test_a_launcher_that_sets_nothing_is_no_news(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    warn_once.cache_clear()
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    monkeypatch.delenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", raising=False)
    with caplog.at_level(logging.INFO):
        start_session("cpu")
    assert not caplog.text
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS" not in os.environ


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("mixed_precision='bf16'", "with a precision of its own in this process; got one with bf16"),
        ("dynamo_backend='eager'", "with a compiler of its own in this process; got one with eager"),
        ("gradient_accumulation_steps=4", "with gradient accumulation in this process; got one with 4 steps"),
    ],
)
def test_an_accelerator_of_the_callers_own_that_would_do_the_loops_work_is_refused(settings: str, message: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", WITH_ACCELERATOR.format(settings)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert f"expected no Accelerator {message}" in found.stderr


def test_other_ways_of_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = start_session("cpu").accelerator
    monkeypatch.setattr(type(accelerator), "distributed_type", DistributedType.FSDP)
    with pytest.raises(InputError, match="plain data parallelism; got FSDP of accelerate's configuration"):
        start_session("cpu")


class Tracker(GeneralTracker):  # type: ignore[misc]
    name = "notebook"
    requires_logging_directory = False
    tracker = None

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[dict[str, Any]] = []

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.shown.append(values)

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self.shown.append({**values, "step": step})


def test_a_tracker_is_shown_the_settings_and_the_numbers() -> None:
    tracker = Tracker()
    session = Session(Accelerator(cpu=True, log_with=tracker), torch.device("cpu"))
    start_tracking(session, 0, {"seed": 3})
    track(session, {"loss": 0.5}, 7)
    assert tracker.shown == [{"seed": 3}, {"loss": 0.5, "step": 7}]


def test_a_tracker_that_is_not_installed_is_refused() -> None:
    with pytest.raises(InputError, match="the package of --report-to dvclive; got none installed; pip install dvclive"):
        start_session("cpu", tracker="dvclive")
    assert start_session("cpu", tracker="tensorboard", folder=Path()).accelerator.log_with
