"""What a synthesis will do and what it will cost, before any of it is done."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import ceil

import torch

from generators.base import Job
from generators.class_conditional import ClassConditionalDiffusion, NetworkSettings, build_unet
from generators.class_conditional_training import TrainingSettings, train_class_conditional
from generators.plan import n_candidates
from pipelines.config import SynthesizeConfig
from pipelines.config_files import parse_pairs
from pipelines.config_groups import DataConfig
from pipelines.console import log, print_table
from rebalance.budget import images_to_add
from rebalance.counts import IntArray
from rebalance.data.table import ImageTable
from rebalance.errors import InputError

_LARGEST = 64  # px; beyond, a pixel-space model learns too slowly
_EXPECTED_REJECTS = 0.3


@dataclass(frozen=True)
class SynthesisPlan:
    """Everything that is decided before work begins.

    Args:
        classes: Class names, by id.
        counts: Real training images of each class.
        budget: Wanted images of each class.
        reserve: Spare candidates per wanted image.
        network: The generator's network.
        training: How it is trained.
        steps: Sampling steps.
        guidance: Strength of the guidance.
        sampling_batch: Images sampled at a time.
    """

    classes: tuple[str, ...]
    counts: IntArray
    budget: IntArray
    reserve: float
    network: NetworkSettings
    training: TrainingSettings
    steps: int
    guidance: float
    sampling_batch: int

    @property
    def expected_candidates(self) -> int:
        """Candidates that will probably have to be made."""
        planned = sum(n_candidates(int(n), self.reserve) for n in self.budget)
        return min(ceil(int(self.budget.sum()) * (1 + _EXPECTED_REJECTS)), planned)

    @property
    def megabytes(self) -> float:
        """Size of the candidates and of the generator's checkpoints on disk, about."""
        pixels = 3 * self.network.image_size**2
        return (self.expected_candidates * (pixels * 0.8 + 500) * 1.3 + 40e6) / 1e6


def plan_synthesis(config: SynthesizeConfig, train: ImageTable, image_size: int, device: torch.device) -> SynthesisPlan:
    """The plan of a config.

    Raises:
        InputError: A budget rule or a setting out of range, or a budget of no image at all.
    """
    budget, generator = config.budget, config.generator
    explicit = _counts(budget.count)
    if explicit and budget.budget != "explicit":
        raise InputError("--budget explicit with --count", f"--budget {budget.budget}", "add --budget explicit")
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
        raise InputError("a budget of at least one image", f"none by {budget.budget}", "the data are balanced already?")
    _check_ranges(config)
    small = min(generator.generator_size or image_size, _LARGEST) <= 16
    channels = generator.generator_channels or ((32, 64) if small else (64, 128, 128))
    step = 2 ** (len(channels) - 1)
    size = generator.generator_size or max(min(image_size, _LARGEST) // step, 2) * step
    training = TrainingSettings(
        updates=generator.generator_updates or (1000 if small else 20_000),
        batch_size=generator.generator_batch_size or (64 if small else 256),
        lr=generator.generator_lr or (1e-3 if small else 4e-4),
        ema=generator.generator_ema,
        label_exponent=generator.label_exponent,
        label_drop=generator.label_drop,
        flip=mirrors(config.data),
        amp=config.amp,
        seed=config.seed,
    )
    batch = generator.sampling_batch or (128 if device.type == "cpu" else 512)
    return SynthesisPlan(
        classes=train.classes,
        counts=train.counts,
        budget=wanted,
        reserve=budget.reserve,
        network=NetworkSettings(train.classes, size, channels, layers=1 if small else 2),
        training=training,
        steps=generator.steps,
        guidance=generator.guidance,
        sampling_batch=batch,
    )


def mirrors(data: DataConfig) -> bool:
    """Whether a mirrored image is still one of its class, as far as the augmentation says."""
    return data.data != "digits" if data.augment == "auto" else "flip" in data.augment


def estimate_minutes(plan: SynthesisPlan, device: torch.device) -> tuple[float, float]:
    """Minutes that training the generator and sampling will take, from a few timed steps at a small batch."""
    probe = min(16, plan.training.batch_size)
    images = torch.zeros((probe, 3, plan.network.image_size, plan.network.image_size), dtype=torch.uint8, device=device)
    labels = torch.arange(probe) % len(plan.classes)
    times: list[float] = []
    settings = TrainingSettings(updates=4, batch_size=probe, amp=plan.training.amp)
    train_class_conditional(
        images, labels, plan.network, settings, progress=lambda update, loss: times.append(time.perf_counter())
    )
    update = (times[-1] - times[0]) / (len(times) - 1) * plan.training.batch_size / probe
    model = ClassConditionalDiffusion(build_unet(plan.network).to(device), plan.network, batch_size=probe)
    jobs = [Job("", "", 0, i, i, {"steps": 2, "guidance": plan.guidance}) for i in range(probe)]
    model.generate(jobs)
    start = time.perf_counter()
    model.generate(jobs)
    image = (time.perf_counter() - start) / 2 / probe * plan.steps
    return update * plan.training.updates / 60, image * plan.expected_candidates / 60


def show_plan(plan: SynthesisPlan, minutes: tuple[float, float]) -> None:
    """The plan as a table, and what it costs."""
    rows = [
        [name, str(n), str(m), str(n_candidates(int(m), plan.reserve) - int(m))]
        for name, n, m in zip(plan.classes, plan.counts, plan.budget, strict=True)
        if m
    ]
    print_table("images to synthesize", ["class", "real", "wanted", "spare candidates"], rows)
    log.info(
        "%d images of %d px; generator: %d updates of %d images, about %.1f min; "
        "sampling: about %d candidates, %.1f min; about %.0f MB",
        plan.budget.sum(),
        plan.network.image_size,
        plan.training.updates,
        plan.training.batch_size,
        minutes[0],
        plan.expected_candidates,
        minutes[1],
        plan.megabytes,
    )


def _counts(pairs: tuple[str, ...]) -> dict[str, int]:
    counts = {}
    for name, text in parse_pairs(pairs, "--count").items():
        if not text.isdecimal():
            raise InputError(
                "--count CLASS=N with a whole number", f"{name}={text}", "write for example --count cat=50"
            )
        counts[name] = int(text)
    return counts


def _check_ranges(config: SynthesizeConfig) -> None:
    generator = config.generator
    ranges = {
        "--reserve": (config.budget.reserve, 0, 100),
        "--label-exponent": (generator.label_exponent, 0, 1),
        "--label-drop": (generator.label_drop, 0, 0.9),
        "--guidance": (generator.guidance, 1, 20),
        "--steps": (generator.steps, 2, 1000),
        "--generator-ema": (generator.generator_ema, 0, 0.99999),
        "--distance-quantile": (config.filter.distance_quantile, 0.5, 1),
        "--floor": (config.filter.floor, 0, 1),
        "--generator-updates": (generator.generator_updates or 1, 1, 10**8),
        "--generator-batch-size": (generator.generator_batch_size or 2, 1, 10**6),
        "--sampling-batch": (generator.sampling_batch or 1, 1, 10**5),
    }
    for flag, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise InputError(f"{flag} from {low} to {high}", str(value), "leave it out for the default")
