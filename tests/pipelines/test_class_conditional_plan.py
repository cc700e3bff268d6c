"""What the plan of the class-conditional generator says before anything is trained."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from generators.class_conditional import ClassConditionalGenerator, build_unet
from generators.class_conditional_training import TrainingSettings
from pipelines import (
    BudgetConfig,
    DataConfig,
    FilterConfig,
    GeneratorConfig,
    SynthesizeConfig,
    class_conditional_plan,
    stable_diffusion_plan,
    synthesize,
)
from pipelines.class_conditional_plan import plan_class_conditional
from pipelines.generator_plan import Amount
from rebalance.data.table import ImageTable


def describe(generator: GeneratorConfig, image_size: int = 16) -> str:
    settings = SynthesizeConfig(data=DataConfig(data="digits"), generator=generator)
    return plan_class_conditional(settings, ("0", "1"), image_size, 1000, torch.device("cpu")).description


@pytest.mark.parametrize(
    ("generator", "image_size"),
    [
        (GeneratorConfig(generator_updates=100), 16),
        (GeneratorConfig(generator_updates=800, generator_batch_size=8), 16),
        (GeneratorConfig(generator_updates=2000), 32),
    ],
)
def test_of_a_tenth_of_the_default_length_blobs_are_to_be_expected(generator: GeneratorConfig, image_size: int) -> None:
    assert describe(generator, image_size).endswith("px (10% of the default length: expect blobs, not objects)")


@pytest.mark.parametrize(
    ("generator", "image_size"),
    [
        (GeneratorConfig(), 16),
        (GeneratorConfig(), 32),
        (GeneratorConfig(generator_updates=101), 16),
        (GeneratorConfig(generator_updates=100, generator_batch_size=65), 16),
        (GeneratorConfig(generator_updates=2001), 32),
    ],
)
def test_a_longer_training_is_described_without_a_warning(generator: GeneratorConfig, image_size: int) -> None:
    assert describe(generator, image_size).endswith(" px")


@pytest.mark.parametrize(
    ("given", "class_conditional", "adapter"), [(None, 1.0, 0.5), (0.0, 0.0, 0.0), (0.7, 0.7, 0.7)]
)
def test_classes_are_drawn_as_they_are_and_for_an_adapter_by_their_root(
    given: float | None, class_conditional: float, adapter: float
) -> None:
    settings = SynthesizeConfig(data=DataConfig(data="digits"), generator=GeneratorConfig(label_exponent=given))
    plan = plan_class_conditional(settings, ("0", "1"), 16, 1000, torch.device("cpu"))
    assert plan.training.label_exponent == class_conditional
    assert stable_diffusion_plan._adaptation(settings).label_exponent == adapter


@pytest.mark.parametrize("objective", ["plain", "cbdm"])
def test_the_objective_is_trained_and_its_time_estimated(
    objective: Literal["plain", "cbdm"], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = GeneratorConfig(generator_objective=objective, generator_channels=(8, 16), generator_batch_size=2)
    settings = SynthesizeConfig(data=DataConfig(data="digits"), generator=generator)
    plan = plan_class_conditional(settings, ("0", "1"), 16, 1000, torch.device("cpu"))
    assert plan.training.objective == objective
    timed: list[TrainingSettings] = []

    def watch(*arguments: Any, progress: Callable[[int, float], None]) -> None:
        timed.append(arguments[3])
        for _ in range(2):
            progress(1, 0.0)

    monkeypatch.setattr(class_conditional_plan, "train_class_conditional", watch)
    plan.estimate_minutes(1)
    assert [(settings.objective, settings.updates, settings.batch_size) for settings in timed] == [(objective, 6, 2)]


@pytest.mark.parametrize("augment", [0.0, 0.12])
def test_the_network_is_told_of_augmentation_where_there_is_some(augment: float) -> None:
    settings = SynthesizeConfig(data=DataConfig(data="digits"), generator=GeneratorConfig(generator_augment=augment))
    plan = plan_class_conditional(settings, ("0", "1"), 16, 1000, torch.device("cpu"))
    assert (plan.training.augment, plan.network.told) == (augment, augment > 0)


@pytest.mark.parametrize("compiled", [False, True])
def test_images_of_a_compiled_network_are_other_jobs(compiled: bool) -> None:
    settings = SynthesizeConfig(data=DataConfig(data="digits"), generator=GeneratorConfig(compile_generator=compiled))
    plan = plan_class_conditional(settings, ("0", "1"), 16, 100, torch.device("cpu"))
    assert plan.training.compile == compiled
    generator = ClassConditionalGenerator(build_unet(plan.network), plan.network)
    table = ImageTable(np.zeros((3, 16, 16, 3), dtype=np.uint8), np.array([0, 0, 1]), ("0", "1"))
    (job,), _ = plan.jobs(generator, table, Amount(np.array([1, 1]), 0.0, 0))
    assert job.settings.get("compile", False) == compiled


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which whatever is timed takes a second."""
    ticks = itertools.count()
    monkeypatch.setattr(class_conditional_plan.ClassConditionalPlan, "_now", lambda _: next(ticks))


def sampling_minutes(strengths: tuple[float, ...], *numbers: int) -> list[float]:
    """Estimated minutes of sampling so many images, in batches of 128."""
    generator = GeneratorConfig(generator_channels=(8, 16), generator_batch_size=2, head_to_tail=strengths)
    settings = SynthesizeConfig(data=DataConfig(data="digits"), generator=generator)
    plan = plan_class_conditional(settings, ("0", "1"), 16, 1000, torch.device("cpu"))
    assert plan.sampling_batch == 128
    return [plan.estimate_minutes(n)[1] for n in numbers]


def test_training_and_sampling_are_compiled_where_told(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    tiny = {"generator_updates": 2, "generator_batch_size": 4, "generator_channels": (8, 16), "steps": 2}
    for told in (False, True):
        synthesize(
            SynthesizeConfig(
                data=DataConfig(data=str(photos)),
                budget=BudgetConfig(max_images=2),
                generator=GeneratorConfig(**tiny, sampling_batch=2, compile_generator=told),
                filter=FilterConfig(feature_updates=2, skip_gate=("distance",)),
                device="cpu",
                out=tmp_path / str(told),
            )
        )
        assert len(compiled) == (4 if told else 0)  # of the estimate, and of what is made


@pytest.mark.usefixtures("ticking")
def test_an_image_that_begins_from_another_takes_as_much_less_time() -> None:
    (whole,), (borrowed,) = (sampling_minutes(strengths, 2 * 128) for strengths in ((), (0.5, 1.0)))
    assert borrowed == pytest.approx(0.75 * whole)


@pytest.mark.usefixtures("ticking")
def test_each_strength_takes_a_padded_batch_of_its_own() -> None:
    (one,) = sampling_minutes((), 2)
    few, full, more = sampling_minutes((0.5, 1.0), 2, 2 * 128, 2 * 128 + 1)
    assert (few, full, more) == pytest.approx((1.5 * one, 1.5 * one, 3 * one))


@pytest.mark.usefixtures("ticking")
@pytest.mark.parametrize("strengths", [(), (0.5, 1.0)])
def test_ranks_share_the_images_and_each_pads_its_own_batches(
    strengths: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_conditional_plan, "world_size", lambda: 2)
    (one,) = sampling_minutes((), 2)
    n = 2 * max(1, len(strengths)) * 128
    few, full, more = sampling_minutes(strengths, 2, n, n + 1)
    batches = 1.5 if strengths else 1.0
    assert (few, full, more) == pytest.approx((batches * one, batches * one, 2 * batches * one))


@pytest.mark.parametrize(("wanted", "batch"), [(1, 8), (8, 8), (9, 16), (100, 128), (5000, 128)])
def test_few_images_are_no_large_batch(wanted: int, batch: int) -> None:
    settings = SynthesizeConfig(data=DataConfig(data="digits"), generator=GeneratorConfig())
    plan = plan_class_conditional(settings, ("0", "1"), 16, wanted, torch.device("cpu"))
    assert plan.sampling_batch == batch


@pytest.mark.parametrize(("wanted", "batch"), [(32, 8), (33, 16), (512, 128), (5000, 128)])
def test_few_images_of_each_strength_are_no_large_batch(wanted: int, batch: int) -> None:
    generator = GeneratorConfig(head_to_tail=(0.5, 0.6, 0.7, 0.8))
    settings = SynthesizeConfig(data=DataConfig(data="digits"), generator=generator)
    plan = plan_class_conditional(settings, ("0", "1"), 16, wanted, torch.device("cpu"))
    assert plan.sampling_batch == batch


@pytest.mark.usefixtures("ticking")
def test_a_padded_batch_takes_as_long_as_a_full_one() -> None:
    one, full, more = sampling_minutes((), 1, 128, 129)
    assert (one, more) == pytest.approx((full, 2 * full))


def test_two_checkpoints_of_four_copies_of_the_weights_have_to_fit_on_the_disk() -> None:
    generator = GeneratorConfig(generator_channels=(8, 16))
    settings = SynthesizeConfig(data=DataConfig(data="digits"), generator=generator)
    plan = plan_class_conditional(settings, ("0", "1"), 16, 1000, torch.device("cpu"))
    copy = sum(weight.numel() * weight.element_size() for weight in build_unet(plan.network).parameters()) / 1e6
    assert plan.megabytes == pytest.approx(2 * 4 * copy)


@pytest.mark.parametrize(("updates", "said"), [(5, True), (500, False)])
def test_a_dry_run_says_so(updates: int, said: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    generator = GeneratorConfig(generator_updates=updates, generator_channels=(8, 16))
    settings = SynthesizeConfig(
        data=DataConfig(data="digits"), out=tmp_path / "out", generator=generator, device="cpu", dry_run=True
    )
    with caplog.at_level(logging.INFO):
        synthesize(settings)
    assert f"{updates} updates of 64 images of 8 px" in caplog.text
    assert ("expect blobs" in caplog.text) == said
