from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from generators import ClassConditionalDiffusion, training_clock
from generators.training_clock import TrainingClock
from rebalance.resampling import FillSampler

CPU = torch.device("cpu")
LABELS = np.repeat(["bright", "dark"], [6, 2])


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass, in seconds; otherwise it stands still."""
    now = [0.0]
    monkeypatch.setattr(training_clock.time, "perf_counter", lambda: now[0])

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


@pytest.mark.parametrize(("seconds", "words"), [(0.5, "3 hours"), (3.0, "17 hours"), (142.0, "33 days")])
def test_a_long_training_is_told_once_in_words(tick: Callable[[float], None], seconds: float, words: str) -> None:
    clock = TrainingClock(20_000, CPU)

    def train() -> None:
        for _ in range(10):
            tick(seconds)
            clock.update()

    with pytest.warns(UserWarning, match=rf"will take about {words} here: fewer updates.* verbose=True") as said:
        train()
    assert len(said) == 1


def test_a_slow_first_update_tells_nothing_of_the_others(tick: Callable[[float], None]) -> None:
    clock = TrainingClock(1000, CPU)
    for seconds in (15.0, *[0.5] * 20):
        tick(seconds)
        clock.update()
    assert clock.told


def test_the_warning_names_the_line_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_clock, "LONG", 0.0)
    images = np.zeros((8, 8, 8), dtype=np.uint8)
    generator = ClassConditionalDiffusion(channels=(8, 16), updates=8, batch_size=2, steps=2, device="cpu")
    with pytest.warns(UserWarning, match=r"this training will take about \d+ s here") as said:
        FillSampler(generator=generator, random_state=0).fit_resample(images, LABELS)
    files = [Path(one.filename).name for one in said if "this training" in str(one.message)]
    assert files == ["test_training_clock.py"]
