"""`synthesize` before work is begun: what it says, what it refuses, and what it counts."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines import (
    BudgetConfig,
    DataConfig,
    GeneratorConfig,
    SynthesizeConfig,
    TrainConfig,
    synthesis,
    synthesize,
)
from pipelines.loading import load_splits
from pipelines.synthesis_plan import Minutes, check_cost, plan_synthesis
from rebalance.errors import InputError

Config = Callable[..., SynthesizeConfig]


def test_dry_run_writes_nothing(tiny_synthesis: Config, tmp_path: Path) -> None:
    assert synthesize(tiny_synthesis(tmp_path / "out", dry_run=True)) is None
    assert not (tmp_path / "out").exists()


def test_a_plan_that_takes_too_long_is_refused_before_work(tiny_synthesis: Config, tmp_path: Path) -> None:
    slow = GeneratorConfig(generator_updates=10**7, generator_channels=(8, 16), generator_batch_size=8)
    with pytest.raises(InputError, match="--max-minutes"):
        synthesize(tiny_synthesis(tmp_path / "out", generator=slow))
    assert not (tmp_path / "out").exists()


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_classifier_of_the_gates_counts_where_it_is_trained(
    tiny_synthesis: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    timed: list[TrainConfig] = []

    def minutes(training: TrainConfig, *_: object) -> float:
        timed.append(training)
        return 90.0

    monkeypatch.setattr(synthesis, "training_minutes", minutes)
    settings = tiny_synthesis(tmp_path / "out", max_minutes=60)
    message = r"about 90\.\d minutes: 90.0 minutes to train the gates' classifier, .* --features"
    with pytest.raises(InputError, match=message):
        synthesize(settings)
    assert not (tmp_path / "out").exists()
    assert [(one.objective.method, one.optimization.updates) for one in timed] == [
        ("balanced_softmax", settings.filter.feature_updates)
    ]
    with caplog.at_level(logging.INFO):
        synthesize(replace(settings, dry_run=True))
    assert "classifier of the gates: about 90.0 minutes\n" in caplog.text
    assert "without --dry-run this is refused" in caplog.text
    given = replace(settings, filter=replace(settings.filter, features=tmp_path / "run"), dry_run=True)
    with pytest.raises(InputError, match="expected a finished run with a model"):
        synthesize(given)
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "weights.safetensors").touch()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        synthesize(given)
    assert len(timed) == 2
    assert "classifier of the gates" not in caplog.text


def test_a_synthesis_goes_on_on_the_kind_of_device_that_it_was_begun_on(
    tiny_synthesis: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_synthesis(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(synthesis, "_write_images", stop)
        with pytest.raises(KeyboardInterrupt):
            synthesize(settings)
    claimed = tmp_path / "out" / "classes.json"
    begun = json.loads(claimed.read_text())
    claimed.write_text(json.dumps({**begun, "device": "cuda"}))
    with pytest.raises(InputError, match="was begun on, cuda, which its images depend on; got cpu; go on there"):
        synthesize(settings)
    claimed.write_text(json.dumps({name: value for name, value in begun.items() if name != "device"}))  # as before
    assert synthesize(settings) is not None
    claimed.write_text(json.dumps({**begun, "device": "cuda"}))
    assert synthesize(settings) is not None, "what is finished may be read anywhere"


def test_an_image_that_cannot_be_read_counts_in_no_plan(photos: Path, tiny_synthesis: Config, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    (copy / "train" / "tail" / "0.jpg").write_bytes(b"no image")
    budget = BudgetConfig(budget="ratio:1", max_per_class=3)
    settings = tiny_synthesis(tmp_path / "out", data=DataConfig(data=str(copy)), budget=budget)
    with pytest.raises(InputError, match="1 of 66 that cannot be read"):
        synthesize(settings)
    assert not (tmp_path / "out").exists()
    result = synthesize(replace(settings, data=replace(settings.data, skip_corrupt=True)))
    assert result is not None
    planned = {entry["class"]: (entry["real"], entry["wanted"]) for entry in result.summary["classes"]}
    assert planned == {"круг": (40, 0), "two words": (16, 3), "f.o.u.r": (7, 3), "tail": (2, 2)}


def test_too_little_disk_is_refused_before_work(
    tiny_synthesis: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**6))
    with pytest.raises(InputError, match="MB of free disk"):
        synthesize(tiny_synthesis(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (BudgetConfig(budget="fill-to-heaven"), "did you mean 'fill-to-head'"),
        (BudgetConfig(budget="explicit", count=("tial=3",)), "did you mean 'tail'"),
        (BudgetConfig(budget="explicit", count=("tail=many",)), "a whole number"),
        (BudgetConfig(count=("tail=3",)), "--budget explicit"),
        (BudgetConfig(budget="ratio:0.001"), "at least one image"),
    ],
)
def test_bad_budgets_are_refused(tiny_synthesis: Config, tmp_path: Path, budget: BudgetConfig, words: str) -> None:
    with pytest.raises(InputError, match=words):
        synthesize(tiny_synthesis(tmp_path / "out", budget=budget))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("minutes", "lower"),
    [
        (Minutes(90, 0, 0), ["--feature-updates"]),
        (Minutes(98, 420, 5), ["--generator-updates", "--feature-updates"]),
        (Minutes(5, 10, 300), ["--max-images"]),
        (Minutes(20, 25, 30), ["--max-images", "--generator-updates", "--feature-updates"]),
    ],
)
def test_what_takes_long_is_named_the_longest_first(
    minutes: Minutes, lower: list[str], tiny_synthesis: Config, tmp_path: Path
) -> None:
    settings = tiny_synthesis(tmp_path / "out")
    plan = plan_synthesis(settings, load_splits(settings.data).train, 16, torch.device("cpu"))
    with pytest.raises(InputError) as refused:
        check_cost(settings, plan, minutes, tmp_path)
    named = re.findall(r"lower (--[a-z-]+)", str(refused.value))
    assert named == lower


def test_the_gates_classifier_is_not_said_to_lack_figures(
    tiny_synthesis: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert synthesize(tiny_synthesis(tmp_path / "out")) is not None
    assert "no figures" not in caplog.text


@pytest.mark.parametrize(("minutes", "said"), [(70.0, True), (2 * 24 * 60.0, False)])
def test_a_limit_of_days_is_no_advice(
    tiny_synthesis: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, said: bool
) -> None:
    monkeypatch.setattr(synthesis, "training_minutes", lambda *_: minutes)
    with pytest.raises(InputError) as refused:
        synthesize(tiny_synthesis(tmp_path / "out", max_minutes=60))
    assert ("raise --max-minutes to" in refused.value.fix) == said
