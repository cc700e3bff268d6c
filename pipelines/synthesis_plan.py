"""What a synthesis will do and what it will cost, before any of it is done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import NamedTuple

import torch

from generators.image_files import folder_name
from generators.plan import n_candidates
from pipelines.class_conditional_plan import plan_class_conditional
from pipelines.config import SynthesizeConfig
from pipelines.config_files import parse_pairs
from pipelines.config_groups import BudgetConfig
from pipelines.console import log, print_table
from pipelines.generator_flags import check_generator
from pipelines.generator_plan import Amount, GeneratorPlan
from pipelines.judging import check_gates
from pipelines.precision import resolve_generator_amp
from pipelines.stable_diffusion_plan import plan_stable_diffusion
from rebalance.budget import images_to_add
from rebalance.counts import IntArray
from rebalance.data.table import ImageTable
from rebalance.durations import minutes_in_words
from rebalance.errors import InputError
from rebalance.files import check_free_space

_EXPECTED_REJECTS = 0.3
_DAY = 24 * 60  # minutes
_LONGEST_NAME = 255 - len(".png")
"""Bytes that file systems take of a class's folder and contact sheet."""
_BYTES_PER_VALUE = {"png": 0.8, "webp": 0.8, "jpeg": 0.4}
"""Size of an image file for each of its 3·S² values, about, of noisy images."""


@dataclass(frozen=True)
class SynthesisPlan:
    """Everything that is decided before work begins.

    Args:
        classes: Class names, by id.
        counts: Real training images of each class.
        amount: How many images are to be made.
        generator: What makes them.
        megabytes: Size of everything written, about.
    """

    classes: tuple[str, ...]
    counts: IntArray
    amount: Amount
    generator: GeneratorPlan
    megabytes: float

    @property
    def budget(self) -> IntArray:
        """Wanted images of each class, (C,)."""
        return self.amount.budget

    @property
    def expected_candidates(self) -> int:
        """Candidates that will probably have to be made."""
        return _expected_candidates(self.amount)


def plan_synthesis(config: SynthesizeConfig, train: ImageTable, image_size: int, device: torch.device) -> SynthesisPlan:
    """The plan of a config.

    Raises:
        InputError: A budget rule or a setting out of range, a setting that the generator has no use for, or a budget of
            no image at all.
    """
    check_generator(config)
    check_gates(config.filter)
    for name in train.classes:
        if len(folder_name(name).encode()) > _LONGEST_NAME:
            raise InputError(
                f"class names of at most {_LONGEST_NAME} bytes, for folders", f"{name[:40]}…", "shorten it"
            )
    config = replace(config, amp=resolve_generator_amp(config.amp, device))
    amount = Amount(_wanted(config.budget, train), config.budget.reserve, config.seed)
    generator: GeneratorPlan
    if config.generator.generator == "stable-diffusion":
        generator = plan_stable_diffusion(config, train.classes, device)
    else:
        generator = plan_class_conditional(config, train.classes, image_size, int(amount.budget.sum()), device)
    n_bytes = 3 * generator.image_size**2 * _BYTES_PER_VALUE[config.files.format] + 500
    copies = 2 if config.files.shards else 1.3  # of the kept ones; where links fail, they are copied
    megabytes = generator.megabytes + _expected_candidates(amount) * n_bytes * copies / 1e6
    return SynthesisPlan(train.classes, train.counts, amount, generator, megabytes)


class Minutes(NamedTuple):
    """About how long the parts of a synthesis take.

    Args:
        features: Training the classifier whose features the gates use; 0 where another run's are used.
        training: Training the generator.
        sampling: Making the candidates.
    """

    features: float
    training: float
    sampling: float


def check_cost(config: SynthesizeConfig, plan: SynthesisPlan, minutes: Minutes, folder: Path) -> None:
    """Refuse what takes too long or too much room.

    Raises:
        InputError: More minutes or megabytes than allowed, or than the disk has.
    """
    limit = config.files.max_gb
    if limit is not None and plan.megabytes > 1000 * limit:
        raise InputError(
            f"a plan of at most {limit:g} GB (--max-gb)",
            f"about {plan.megabytes / 1000:.2f} GB",
            "lower --max-images, choose --format jpeg or a smaller --output-size, or raise --max-gb",
        )
    check_free_space(folder, plan.megabytes * 1e6, "the plan")
    if sum(minutes) > config.max_minutes:
        features = f"{minutes_in_words(minutes.features)} to train the gates' classifier, " if minutes.features else ""
        raise InputError(
            f"a plan of at most {config.max_minutes:g} minutes (--max-minutes)",
            f"about {minutes_in_words(sum(minutes))}: {features}"
            f"{minutes_in_words(minutes.training)} to train the generator, "
            f"{minutes_in_words(minutes.sampling)} to sample, by a few timed steps",
            _what_to_lower(minutes, config.max_minutes),
        )


def _what_to_lower(minutes: Minutes, limit: float) -> str:
    """What helps: fewer images do not where it is a training that takes long."""
    parts = {
        "lower --feature-updates, choose a smaller --model, or give the --features of a run": minutes.features,
        "lower --generator-updates, --generator-batch-size or --generator-channels, which cost quality": (
            minutes.training
        ),
        "lower --max-images or --steps": minutes.sampling,
    }
    ordered = sorted(parts, key=lambda part: -parts[part])
    what = "; ".join(part for i, part in enumerate(ordered) if i == 0 or parts[part] > limit / 5)
    total = sum(minutes) + 1
    return f"use a GPU; {what}" + (f"; or raise --max-minutes to {total:.0f}" if total < _DAY else "")


def show_plan(plan: SynthesisPlan, minutes: Minutes) -> None:
    """The plan as a table, and what it costs."""
    rows = [
        [name, str(n), str(m), str(n_candidates(int(m), plan.amount.reserve) - int(m))]
        for name, n, m in zip(plan.classes, plan.counts, plan.budget, strict=True)
        if m
    ]
    print_table("images to synthesize", ["class", "real", "wanted", "spare candidates"], rows)
    log.info("%d images of %d px, about %.0f MB", plan.budget.sum(), plan.generator.image_size, plan.megabytes)
    if minutes.features:
        log.info("classifier of the gates: about %s", minutes_in_words(minutes.features))
    log.info("%s, about %s", plan.generator.description, minutes_in_words(minutes.training))
    log.info("sampling: about %d candidates, %s", plan.expected_candidates, minutes_in_words(minutes.sampling))


def _wanted(budget: BudgetConfig, train: ImageTable) -> IntArray:
    explicit = _counts(budget.count)
    if explicit and budget.budget != "explicit":
        raise InputError("--budget explicit with --count", f"--budget {budget.budget}", "add --budget explicit")
    if not 0 <= budget.reserve <= 100:
        raise InputError("--reserve from 0 to 100", str(budget.reserve), "leave it out for the default")
    wanted = images_to_add(
        train.counts,
        budget.budget,
        explicit=explicit,
        classes=train.classes,
        kappa=budget.worth,
        max_per_class=budget.max_per_class,
        max_ratio=budget.max_ratio,
        max_images=budget.max_images,
    )
    if wanted.sum() == 0:
        raise InputError(
            "a budget of at least one image",
            f"none by {budget.budget}",
            "ask for more, or leave the data as they are: they may be balanced",
        )
    return wanted


def _expected_candidates(amount: Amount) -> int:
    planned = sum(n_candidates(int(n), amount.reserve) for n in amount.budget)
    return min(ceil(int(amount.budget.sum()) * (1 + _EXPECTED_REJECTS)), planned)


def _counts(pairs: tuple[str, ...]) -> dict[str, int]:
    counts = {}
    for name, text in parse_pairs(pairs, "--count").items():
        if not text.isdecimal():
            raise InputError(
                "--count CLASS=N with a whole number", f"{name}={text}", "write for example --count cat=50"
            )
        counts[name] = int(text)
    return counts
