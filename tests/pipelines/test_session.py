"""What a command takes from accelerate and its launcher: devices and ranks, nothing that the loop does itself."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import session
from pipelines.session import start_session
from rebalance.errors import InputError

ROOT = Path(__file__).parents[2]
WITH_ACCELERATOR = """
from accelerate import Accelerator
from pipelines.session import start_session
Accelerator(mixed_precision="bf16", cpu=True)
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
    session._warn_once.cache_clear()
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
    session._warn_once.cache_clear()
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    monkeypatch.delenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", raising=False)
    with caplog.at_level(logging.INFO):
        start_session("cpu")
    assert not caplog.text
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS" not in os.environ


def test_an_accelerator_of_the_callers_own_with_another_precision_is_refused() -> None:
    found = subprocess.run(
        [sys.executable, "-c", WITH_ACCELERATOR],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert "expected no Accelerator with a precision of its own in this process; got one with bf16" in found.stderr


def test_a_tracker_that_is_not_installed_is_refused() -> None:
    with pytest.raises(InputError, match="the package of --report-to dvclive; got none installed; pip install dvclive"):
        start_session("cpu", tracker="dvclive")
    assert start_session("cpu", tracker="tensorboard", folder=Path()).accelerator.log_with
