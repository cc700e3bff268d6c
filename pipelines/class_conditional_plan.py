"""The class-conditional diffusion model in a synthesis: settings by image size, training, jobs."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import mean, median
from typing import Any, final

import torch

from generators.base import ImageGenerator, Job
from generators.class_conditional import ClassConditionalGenerator, NetworkSettings, build_unet, is_grey
from generators.class_conditional_sizes import settings_for
from generators.class_conditional_training import TrainingSettings, train_class_conditional
from generators.head_to_tail import head_to_tail_jobs
from generators.plan import plan_jobs
from generators.source_images import steps_of
from pipelines.config import SynthesizeConfig
from pipelines.config_groups import DataConfig
from pipelines.console import log
from pipelines.generator_plan import Amount, Workshop, training_bar
from pipelines.session import wrap
from rebalance.data.resizing import resize_images
from rebalance.data.table import ImageTable
from rebalance.errors import InputError
from rebalance.ranks import barrier, is_main, rank, world_size

_SHORT = 0.1
"""Below this share of the default length images of 32 px were blobs of the class's colours, measured on CIFAR-10."""
_PROBE_PIXELS = 64 * 16**2
"""Pixels of the batch that is timed on a CPU, where a small one tells of a large one; a GPU takes the whole batch."""


@final
@dataclass(frozen=True)
class ClassConditionalPlan:
    """See `GeneratorPlan`.

    Args:
        network: The U-Net.
        training: How it is trained.
        steps: Sampling steps.
        guidance: Strength of the guidance.
        strengths: How far images of other classes are noised to begin from; none begin from noise alone.
        sampling_batch: Images sampled at a time.
        output_size: Height and width of the images handed out, px.
        device: Where it runs.
    """

    network: NetworkSettings
    training: TrainingSettings
    steps: int
    guidance: float
    strengths: tuple[float, ...]
    sampling_batch: int
    output_size: int | None
    device: torch.device

    @property
    def image_size(self) -> int:
        """See `GeneratorPlan`."""
        return self.output_size or self.network.image_size

    @property
    def description(self) -> str:
        """See `GeneratorPlan`."""
        training, size = self.training, self.network.image_size
        text = f"generator: {training.updates} updates of {training.batch_size} images of {size} px"
        usual = settings_for(size)
        share = training.updates * training.batch_size / (usual.updates * usual.batch_size)
        short = f"{100 * share:.2g}% of the default length: expect blobs, not objects"
        return text if share > _SHORT else f"{text} ({short})"

    @property
    def megabytes(self) -> float:
        """See `GeneratorPlan`."""
        with torch.device("meta"):
            n_parameters: int = sum(parameter.numel() for parameter in build_unet(self.network).parameters())
        return n_parameters * 32 / 1e6  # two checkpoints of weights, average and two moments

    def estimate_minutes(self, n_images: int) -> tuple[float, float]:
        """See `GeneratorPlan`."""
        log.info("timing some updates of the generator and the sampling of %d images", self.sampling_batch)
        size, on_gpu = self.network.image_size, self.device.type == "cuda"
        share = -(-self.training.batch_size // world_size())  # images of an update on this rank
        probe = share if on_gpu else min(share, max(8, _PROBE_PIXELS // size**2))
        images = torch.zeros((probe, 3, size, size), dtype=torch.uint8, device=self.device)
        labels = torch.arange(probe) % len(self.network.classes)
        times: list[float] = []
        settings = replace(self.training, updates=6, batch_size=probe, lr=TrainingSettings.lr)
        train_class_conditional(
            images, labels, self.network, settings, progress=lambda update, loss: times.append(self._now())
        )
        update = median(after - before for before, after in pairwise(times)) * share / probe
        sampled = self.sampling_batch if on_gpu else probe
        unet = build_unet(self.network).to(self.device)
        how: dict[str, Any] = {"amp": self.training.amp, "compile": self.training.compile}
        model = ClassConditionalGenerator(unet, self.network, batch_size=sampled, **how)
        jobs = [Job("", "", 0, i, i, {"steps": 2, "guidance": self.guidance}) for i in range(sampled)]
        model.generate(jobs)
        start = self._now()
        model.generate(jobs)
        steps = mean(steps_of(self.steps, strength) for strength in self.strengths or (1.0,))
        image = (self._now() - start) / 2 / sampled * steps
        kinds = _n_kinds(self.strengths)
        n_batches = kinds * -(-n_images // (world_size() * kinds * self.sampling_batch))  # of each rank, padded
        return update * self.training.updates / 60, image * n_batches * self.sampling_batch / 60

    def _now(self) -> float:
        """Seconds, once what was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def make(self, workshop: Workshop) -> ImageGenerator:
        """See `GeneratorPlan`."""
        folder = workshop.folder
        if not (folder / "unet.safetensors").exists():
            pixels = resize_images(workshop.pixels(), self.network.image_size)
            network = replace(self.network, n_colours=1 if is_grey(pixels) else 3)
            with training_bar(self.training.updates, "training the generator") as report:
                unet = train_class_conditional(
                    pixels.to(self.device),
                    torch.from_numpy(workshop.table.targets),
                    network,
                    self.training,
                    checkpoints=folder / "checkpoints",
                    wrap=lambda module: wrap(workshop.session, module),
                    backward=workshop.session.accelerator.backward,
                    progress=report,
                    share=(rank(), world_size()),
                )
            if is_main():
                ClassConditionalGenerator(unet, network).save(folder)
            barrier()
        if is_main():
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        generator = ClassConditionalGenerator.load(
            folder,
            batch_size=self.sampling_batch,
            amp=self.training.amp,
            output_size=self.output_size,
            compile=self.training.compile,
        )
        return generator.to(self.device)

    def jobs(self, generator: ImageGenerator, table: ImageTable, amount: Amount) -> list[list[Job]]:
        """See `GeneratorPlan`."""
        settings = {
            "steps": self.steps,
            "guidance": self.guidance,
            "batch_size": self.sampling_batch,
            "amp": self.training.amp,
            **({"output_size": self.output_size} if self.output_size is not None else {}),
            **({"compile": True} if self.training.compile else {}),
        }
        told: dict[str, Any] = {"reserve": amount.reserve, "seed": amount.seed, "settings": settings}
        if not self.strengths:
            return plan_jobs(generator.fingerprint, table.classes, amount.budget, **told)
        assert isinstance(generator, ClassConditionalGenerator)
        jobs, sources = head_to_tail_jobs(generator.fingerprint, table, amount.budget, self.strengths, **told)
        generator.sources.update(sources)
        return jobs


def plan_class_conditional(
    config: SynthesizeConfig, classes: tuple[str, ...], image_size: int, n_images: int, device: torch.device
) -> ClassConditionalPlan:
    """The plan of a config, for so many images of this size."""
    generator = config.generator
    usual = settings_for(generator.generator_size or image_size, generator.generator_channels)
    training = TrainingSettings(
        updates=generator.generator_updates or usual.updates,
        batch_size=generator.generator_batch_size or usual.batch_size,
        lr=generator.generator_lr or usual.lr,
        ema=generator.generator_ema,
        label_exponent=1.0 if generator.label_exponent is None else generator.label_exponent,
        label_drop=generator.label_drop,
        objective=generator.generator_objective,
        augment=generator.generator_augment,
        flip=mirrors(config.data),
        amp=config.amp,
        compile=generator.compile_generator,
        seed=config.seed,
    )
    if training.batch_size < world_size():
        raise InputError(
            f"--generator-batch-size of at least {world_size()}, an image for each process",
            str(training.batch_size),
            "raise it, or use fewer processes",
        )
    return ClassConditionalPlan(
        network=NetworkSettings(
            classes,
            generator.generator_size or usual.image_size,
            usual.channels,
            layers=usual.layers,
            told=generator.generator_augment > 0,
        ),
        training=training,
        steps=generator.steps,
        guidance=generator.guidance,
        strengths=generator.head_to_tail,
        sampling_batch=generator.sampling_batch
        or min(_sampling_batch(-(-n_images // _n_kinds(generator.head_to_tail))), 128 if device.type == "cpu" else 512),
        output_size=config.files.output_size,
        device=device,
    )


def _n_kinds(strengths: tuple[float, ...]) -> int:
    """Kinds of images that are sampled in batches of their own."""
    return max(1, len(set(strengths)))


def _sampling_batch(n_images: int) -> int:
    """A batch that few images of one kind fill: the next power of 2, at least 8."""
    return max(8, 1 << (max(n_images, 1) - 1).bit_length())


def mirrors(data: DataConfig) -> bool:
    """Whether a mirrored image is still one of its class, as far as the augmentation says."""
    return data.data != "digits" if data.augment == "auto" else "flip" in data.augment
