"""Stable Diffusion in a synthesis: checkpoint, prompts, cost, adapter, jobs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import final

import torch

from generators.base import ImageGenerator, Job
from generators.class_names import class_names, read_descriptions, read_names
from generators.latent_sampling import Sampling
from generators.lora_inputs import token_names
from generators.lora_training import AdaptationSettings
from generators.prompt_embeddings import LearntTokens, PromptEmbedder
from generators.prompts import TEMPLATES, Prompts, fit_prompts, make_prompts
from generators.stable_diffusion import StableDiffusion
from generators.stable_diffusion_checkpoint import Checkpoint, open_checkpoint
from generators.stable_diffusion_jobs import STRENGTHS, find_sources, image_jobs, text_jobs
from generators.stable_diffusion_settings import ImageSettings, resolve_settings
from pipelines.adaptation import adapt, tokens_for
from pipelines.class_conditional_plan import mirrors
from pipelines.config import SynthesizeConfig
from pipelines.console import log
from pipelines.generator_config import StableDiffusionConfig
from pipelines.generator_plan import Amount, Workshop
from rebalance.data.table import ImageTable


@final
@dataclass(frozen=True)
class StableDiffusionPlan:
    """See `GeneratorPlan`.

    Args:
        checkpoint: Of the weights.
        config: As given.
        settings: Sizes, batch, precision; every default resolved.
        samplings: One, or one for each strength.
        prompts: Of every class.
        adaptation: How the adapter is trained, if one is.
        token_starts: What the tokens of the classes begin at, if they are learnt.
        device: Where it runs.
    """

    checkpoint: Checkpoint
    config: StableDiffusionConfig
    settings: ImageSettings
    samplings: tuple[Sampling, ...]
    prompts: Prompts
    adaptation: AdaptationSettings | None
    token_starts: tuple[str, ...] | None
    device: torch.device
    _loaded: list[StableDiffusion] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def image_size(self) -> int:
        """See `GeneratorPlan`."""
        assert self.settings.output_size is not None
        return self.settings.output_size

    @property
    def description(self) -> str:
        """See `GeneratorPlan`."""
        made = f"{self.checkpoint.name} ({self.checkpoint.licence}), mode {self.config.mode}, {self.settings.size} px"
        if self.adaptation is None:
            return made
        return f"{made}; adapter: {self.adaptation.updates} updates of {self.adaptation.batch_size} images"

    @property
    def megabytes(self) -> float:
        """See `GeneratorPlan`."""
        return 0.0 if self.adaptation is None else 6.0 * self.adaptation.rank  # two checkpoints, of SD 1.5's adapter

    def estimate_minutes(self, n_images: int) -> tuple[float, float]:
        """See `GeneratorPlan`."""
        batch = self.settings.batch_size or 1
        generator = self._base()
        jobs = [self._probe(seed) for seed in range(batch)]
        generator.prepare(jobs)  # the text encoder is loaded once, for all images
        few, more = (self._seconds(generator, jobs, steps) for steps in (1, 3))
        step = max(more - few, 0.0) / 2
        updates = sum(one.n_updates for one in self.samplings) / len(self.samplings)
        sampling = (max(few - step, 0.0) + step * updates) * n_images / batch
        training = 0.0
        if self.adaptation is not None:
            # A guided step predicts twice; an update predicts once, and its gradient costs twice as much again.
            predictions = self.adaptation.updates * self.adaptation.batch_size * 3
            training = predictions * step / batch / (2 if self.samplings[0].guidance > 1 else 1)
        return training / 60, sampling / 60

    def make(self, workshop: Workshop) -> ImageGenerator:
        """See `GeneratorPlan`."""
        if self.checkpoint.distilled and self.samplings[0].steps > 8:
            log.warning("%s is made for 1 to 8 steps: see --steps, --guidance, --scheduler", self.checkpoint.name)
        if self.adaptation is None and self.config.adapter is None:
            return self._base()
        self._loaded.clear()  # frees the memory that training needs
        adapter = self.config.adapter
        if self.adaptation is not None:
            assert self.settings.size is not None
            adapter = adapt(
                self.checkpoint,
                self.prompts,
                self.adaptation,
                workshop,
                size=self.settings.size,
                token_starts=self.token_starts,
            )
        assert adapter is not None
        return StableDiffusion(self.checkpoint, self.settings, device=self.device, adapters=[adapter])

    def jobs(self, generator: ImageGenerator, table: ImageTable, amount: Amount) -> list[list[Job]]:
        """See `GeneratorPlan`."""
        assert isinstance(generator, StableDiffusion)
        (adapter,) = generator.adapters or ("",)
        if self.config.mode != "image":
            return text_jobs(
                generator.fingerprint,
                table.classes,
                amount.budget,
                self.prompts,
                self.samplings[0],
                reserve=amount.reserve,
                seed=amount.seed,
                adapter=adapter,
            )
        sources = find_sources(
            table,
            amount.budget,
            min_sources=self.config.min_sources,
            per_class=self.config.max_sources,
            seed=amount.seed,
        )
        generator.sources.update(sources.images)
        return image_jobs(
            generator.fingerprint,
            table.classes,
            amount.budget,
            self.prompts,
            self.samplings[0],
            sources,
            strengths=[one.strength or 1.0 for one in self.samplings],
            reserve=amount.reserve,
            seed=amount.seed,
            adapter=adapter,
        )

    def _base(self) -> StableDiffusion:
        """The generator without an adapter, loaded once."""
        if not self._loaded:
            self._loaded.append(StableDiffusion(self.checkpoint, self.settings, device=self.device))
        return self._loaded[0]

    def _probe(self, seed: int) -> Job:
        sampling = self.samplings[0]
        settings = {
            "mode": "text",
            "prompt": "",
            "negative": "",
            "steps": 1,
            "guidance": sampling.guidance,
            "scheduler": sampling.scheduler,
        }
        return Job("", "", 0, seed, seed, settings)

    def _seconds(self, generator: StableDiffusion, jobs: list[Job], steps: int) -> float:
        timed = [replace(job, settings={**job.settings, "steps": steps}) for job in jobs]
        if self.device.type == "cuda" or self.settings.compile:
            generator.generate(timed)  # the first batch of a shape chooses kernels
        start = time.perf_counter()
        generator.generate(timed)
        return time.perf_counter() - start


def plan_stable_diffusion(
    config: SynthesizeConfig, classes: tuple[str, ...], device: torch.device
) -> StableDiffusionPlan:
    """The plan of a config; the checkpoint is fetched if it is not on disk, and nothing is loaded yet.

    Raises:
        InputError: Anything wrong with checkpoint, prompts, sizes or sampling.
    """
    given, generator = config.stable_diffusion, config.generator
    checkpoint = open_checkpoint(
        given.checkpoint, revision=given.revision, variant=given.variant, offline=given.offline
    )
    wanted = ImageSettings(
        size=generator.generator_size,
        output_size=config.files.output_size,
        batch_size=generator.sampling_batch,
        dtype="bfloat16" if given.dtype == "auto" and config.amp == "bf16" else given.dtype,
        safety_checker=given.safety_checker,
        compile=generator.compile_generator,
    )
    sampling = Sampling(generator.steps, generator.guidance, given.scheduler)
    strengths = (given.strength or STRENGTHS) if given.mode == "image" else (None,)
    samplings = tuple(replace(sampling, strength=strength) for strength in strengths)
    names = {} if given.class_names is None else read_names(given.class_names)
    tokens = _tokens(given, classes)
    prompts = make_prompts(
        classes,
        templates=given.template or TEMPLATES,
        names=names,
        descriptions=None if given.descriptions is None else read_descriptions(given.descriptions),
        tokens=token_names(classes) if tokens is not None else None,
        negative=given.negative_prompt,
        seed=config.seed,
    )
    return StableDiffusionPlan(
        checkpoint=checkpoint,
        config=given,
        settings=resolve_settings(wanted, checkpoint, device),
        samplings=samplings,
        prompts=_fitted(prompts, checkpoint, tokens, given.cut_prompts),
        adaptation=_adaptation(config) if given.mode == "adapted" else None,
        token_starts=class_names(classes, names) if given.class_tokens else None,
        device=device,
    )


def _adaptation(config: SynthesizeConfig) -> AdaptationSettings:
    generator, given = config.generator, config.stable_diffusion
    return AdaptationSettings(
        updates=generator.generator_updates or 1000,
        batch_size=generator.generator_batch_size or 8,
        lr=generator.generator_lr or 1e-4,
        rank=given.lora_rank,
        layers=given.lora_layers,
        label_exponent=0.5 if generator.label_exponent is None else generator.label_exponent,
        prompt_drop=generator.label_drop,
        min_snr=given.min_snr,
        flip=mirrors(config.data),
        token_lr=given.token_lr,
        gradient_checkpointing=given.gradient_checkpointing,
        amp=config.amp,
        seed=config.seed,
    )


def _tokens(given: StableDiffusionConfig, classes: tuple[str, ...]) -> LearntTokens | None:
    """The tokens that prompts will have: those to be learnt, or those of the given adapter."""
    if given.class_tokens:
        return LearntTokens(tuple(token_names(classes).values()), {})
    return tokens_for(given.adapter, classes)


def _fitted(prompts: Prompts, checkpoint: Checkpoint, tokens: LearntTokens | None, cut: bool) -> Prompts:
    embedder = PromptEmbedder(checkpoint, torch.float32, tokens)
    fitted, notes = fit_prompts(prompts, embedder.n_tokens, cut=cut)
    for note in notes[:10]:
        log.warning("%s", note)
    if len(notes) > 10:
        log.warning("%d more prompts were cut", len(notes) - 10)
    return fitted
