"""Stable Diffusion as an image generator: text → image, image → image, with or without a LoRA adapter.

An image is a function of its job alone: its noise comes from a generator of its own, prompts are embedded one by one,
and every batch is padded to one shape, since the shape of a batch changes the last bits of its rows. Rombach et al.,
High-Resolution Image Synthesis with Latent Diffusion Models, 2022; Podell et al., SDXL, 2023.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from generators.base import NOT_FINITE, UNSAFE, Generated, Job, group_jobs, to_pixels
from generators.compiling import compile_in_place
from generators.latent_sampling import Condition, Sampling, draw_noise, make_scheduler, sample_latents
from generators.lora import load_adapter
from generators.prompt_embeddings import PromptEmbedder
from generators.safety import SafetyChecker
from generators.source_images import read_source
from generators.stable_diffusion_checkpoint import Checkpoint
from generators.stable_diffusion_loading import load_model
from generators.stable_diffusion_settings import DTYPES, ImageSettings, resolve_settings
from rebalance import __version__
from rebalance.data.resizing import resize_images
from rebalance.data.table import Image
from rebalance.errors import InputError, RunError

_SLICED_SIZE = 256
"""From this size (px) on the VAE takes images one by one: they are large enough, and a batch needs many gigabytes."""

_NEEDED = {"mode", "prompt", "negative", "steps", "guidance", "scheduler"}
_Kind = tuple[str, int, float, str, float, str]
"""What the jobs of one batch share: adapter, steps, guidance, scheduler, strength, mode."""


@final
class StableDiffusion:
    """A Stable Diffusion checkpoint that makes the images of jobs.

    A job's settings are `prompt`, `negative`, `steps`, `guidance`, `scheduler`, `mode` ("text" or "image"), for "image"
    also `strength` and `source`, the hash of the source image, and optionally `adapter`, the hash of an adapter;
    `generators.stable_diffusion_jobs` writes them.

    Args:
        checkpoint: From `open_checkpoint`.
        settings: Sizes, batch, precision.
        device: On which it runs.
        sources: Content hash → source image, for mode "image".
        adapters: Folders or files of LoRA adapters.

    Raises:
        InputError: A size that the VAE cannot make, a damaged checkpoint or an adapter that does not fit.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: ImageSettings | None = None,
        *,
        device: torch.device | str = "cpu",
        sources: Mapping[str, Image] | None = None,
        adapters: Sequence[Path] = (),
    ) -> None:
        self.checkpoint = checkpoint
        self.device = torch.device(device)
        self.sources = dict(sources or {})
        self.settings = resolve_settings(settings or ImageSettings(), checkpoint, self.device)
        self.dtype = DTYPES[self.settings.dtype]
        self._scale = checkpoint.pixels_per_latent
        self._scheduler_config = checkpoint.config("scheduler")
        unet = load_model(checkpoint, "unet", self.dtype)
        self._adapters = {}
        for path in adapters:
            adapter = load_adapter(path, unet, checkpoint)
            self._adapters[adapter.fingerprint] = adapter
        self._embedders = {"": PromptEmbedder(checkpoint, self.dtype)}
        for name, adapter in self._adapters.items():
            same = adapter.tokens is None
            self._embedders[name] = (
                self._embedders[""] if same else PromptEmbedder(checkpoint, self.dtype, adapter.tokens)
            )
        self.unet = self._place(unet)
        # float16 overflows in decoders that were not tuned for it, and gives NaN, which as bytes is black.
        overflows = self.dtype == torch.float16 and checkpoint.config("vae").get("force_upcast", True)
        self._vae_dtype = torch.float32 if overflows else self.dtype
        self.vae = self._place(load_model(checkpoint, "vae", self._vae_dtype))
        if (self.settings.size or 0) >= _SLICED_SIZE:
            self.vae.enable_slicing()
        checked = self.settings.safety_checker and checkpoint.has_safety_checker
        self.safety = SafetyChecker(checkpoint, self.dtype, self.device) if checked else None
        if self.settings.compile:
            compile_in_place(self.unet)
            compile_in_place(self.vae.decoder)
        parts = [checkpoint.weights_hash, json.dumps(asdict(self.settings), sort_keys=True), self.safety is not None]
        self.fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def adapters(self) -> tuple[str, ...]:
        """Fingerprints of the adapters, in the order given; what a job's `adapter` names."""
        return tuple(self._adapters)

    @property
    def facts(self) -> dict[str, Any]:
        """What a manifest should say of the generator."""
        used = self.safety is not None
        return {
            "checkpoint": self.checkpoint.name,
            "revision": self.checkpoint.revision,
            "licence": self.checkpoint.licence,
            "weights": self.checkpoint.weights_hash,
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type,
            "versions": {"longtail-rebalance": __version__}
            | {name: version(name) for name in ("torch", "diffusers", "transformers", "peft")},
            "safety_checker": "on" if used else "off" if self.checkpoint.has_safety_checker else "none came with it",
            **{key: value for key, value in asdict(self.settings).items() if key != "safety_checker"},
        }

    def n_tokens(self, text: str, adapter: str = "") -> int:
        """Length of a prompt in tokens, start and end included."""
        return self._embedders[adapter].n_tokens(text)

    def embed(self, prompts: Iterable[str], adapter: str = "") -> None:
        """Embed prompts ahead of `generate`, so that the text encoders are loaded once for a whole plan."""
        self._embedders[adapter].embed(prompts, self.device)

    def generate(self, jobs: Sequence[Job]) -> Tensor:
        """The images (N, 3, S, S) of `generate_checked` alone; those that the safety checker objects to are NaN too."""
        return self.generate_checked(jobs).images

    def batches(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """See `ImageGenerator`: jobs of one adapter, strength and sampler."""
        return group_jobs(jobs, _kind, self.settings.batch_size or 1)

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Embed the jobs' prompts.

        Raises:
            InputError: An unknown adapter, or too long a prompt.
        """
        texts: dict[str, dict[str, None]] = {}
        for job in jobs:
            own = texts.setdefault(job.settings.get("adapter", ""), {})
            own |= dict.fromkeys((job.settings["prompt"], job.settings["negative"]))
        for adapter, own in texts.items():
            if adapter not in self._embedders:
                raise InputError("an adapter that was loaded", adapter, "hand its folder to the generator")
            self.embed(own, adapter)

    def generate_checked(self, jobs: Sequence[Job]) -> Generated:
        """Images of the jobs, in their order, and why some are missing.

        Raises:
            InputError: Settings that make no image, an unknown source or adapter, or too long a prompt.
            RunError: Out of memory.
        """
        groups: dict[_Kind, list[int]] = {}
        for place, job in enumerate(jobs):
            groups.setdefault(_kind(job), []).append(place)
        self.prepare(jobs)
        size = self.settings.output_size or self.settings.size
        assert size is not None
        images, failures = torch.empty(len(jobs), 3, size, size), [""] * len(jobs)
        batch_size = self.settings.batch_size or 1
        for kind in sorted(groups):
            for start in range(0, len(groups[kind]), batch_size):
                places = groups[kind][start : start + batch_size]
                made = self._make([jobs[place] for place in places], kind)
                images[places] = made.images
                for place, failure in zip(places, made.failures, strict=True):
                    failures[place] = failure
        return Generated(images, failures)

    @torch.no_grad()
    def _make(self, jobs: Sequence[Job], kind: _Kind) -> Generated:
        """One batch, padded to its full shape by repeating the last job."""
        assert self.settings.batch_size is not None
        assert self.settings.output_size is not None
        padded = [*jobs, *[jobs[-1]] * (self.settings.batch_size - len(jobs))]
        adapter, steps, guidance, scheduler, strength, mode = kind
        sampling = Sampling(steps, guidance, scheduler, strength if mode == "image" else None)
        generators = [torch.Generator().manual_seed(job.seed) for job in padded]
        self._use(adapter)
        benchmark = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = False  # it may choose other kernels in another run
        try:
            latents = sample_latents(
                self.unet,
                make_scheduler(scheduler, self._scheduler_config),
                self._condition(padded, adapter),
                sampling,
                generators,
                size=(self._latent_size, self._latent_size),
                pixels_per_latent=self._scale,
                dtype=self.dtype,
                source=self._encode(padded, generators) if mode == "image" else None,
            )
            images = self._decode(latents)
            flags = self.safety(images) if self.safety is not None else torch.zeros(len(padded), dtype=torch.bool)
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"out of memory at {len(padded)} images of {self.settings.size} px; start anew with half the batch, "
                "since the size of a batch changes the images"
            ) from error
        finally:
            torch.backends.cudnn.benchmark = benchmark
        images = resize_images(images[: len(jobs)], self.settings.output_size).cpu()
        finite = torch.isfinite(images).flatten(1).all(dim=1)
        failures = [
            UNSAFE if flag else "" if good else NOT_FINITE
            for flag, good in zip(flags.tolist(), finite.tolist(), strict=False)
        ]
        images[torch.tensor([bool(failure) for failure in failures])] = torch.nan
        return Generated(images, failures)

    def _condition(self, jobs: Sequence[Job], adapter: str) -> Condition:
        embedder = self._embedders[adapter]
        prompts = [embedder.prompt(job.settings["prompt"]) for job in jobs]
        negatives = [embedder.negative(job.settings["negative"]) for job in jobs]
        states = [torch.stack([one.states for one in part]).to(self.device) for part in (prompts, negatives)]
        if not self.checkpoint.xl:
            return Condition(*states)
        pooled = [torch.stack([one.pooled for one in part]).to(self.device) for part in (prompts, negatives)]  # type: ignore[misc]
        return Condition(*states, *pooled)

    def _encode(self, jobs: Sequence[Job], generators: Sequence[torch.Generator]) -> Tensor:
        """Latents of the jobs' source images, drawn from what the encoder says of them."""
        arrays = [read_source(self.sources, job.settings["source"], self.settings.size) for job in jobs]
        pixels = torch.stack([torch.from_numpy(array.copy()) for array in arrays]).permute(0, 3, 1, 2)
        images = pixels.to(self.device).float() / 127.5 - 1
        told = self.vae.encode(images.to(self._vae_dtype)).latent_dist
        noise = draw_noise(generators, tuple(told.mean.shape[1:])).to(self.device)
        latents: Tensor = (told.mean.float() + told.std.float() * noise) * self.vae.config.scaling_factor
        return latents

    def _decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, S, S) float32 in [0, 1], NaN where the latents are."""
        scaled = (latents / self.vae.config.scaling_factor).to(self._vae_dtype)
        images: Tensor = self.vae.decode(scaled).sample.float()
        return to_pixels(images)

    def _use(self, adapter: str) -> None:
        if adapter:
            self.unet.enable_lora()
            self.unet.set_adapters([adapter], [1.0])
        elif self._adapters:
            self.unet.disable_lora()

    @property
    def _latent_size(self) -> int:
        assert self.settings.size is not None
        return self.settings.size // self._scale

    def _place(self, module: Any) -> Any:
        return module.to(self.device, memory_format=torch.channels_last)


def _kind(job: Job) -> _Kind:
    told = job.settings
    if not told.keys() >= _NEEDED:
        missing = ", ".join(sorted(_NEEDED - told.keys()))
        raise InputError("jobs of Stable Diffusion", f"one without {missing}", "plan them with stable_diffusion_jobs")
    if told["mode"] not in ("text", "image"):
        raise InputError("mode text or image", repr(told["mode"]), "plan the jobs with stable_diffusion_jobs")
    strength = told["strength"] if told["mode"] == "image" else 1.0
    return told.get("adapter", ""), told["steps"], told["guidance"], told["scheduler"], strength, told["mode"]
