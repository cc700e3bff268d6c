"""Noise → latents: the samplers of Stable Diffusion, run on a batch whose images are each a function of their seed.

With classifier-free guidance, at each step

    e = e(x_t, negative) + w · (e(x_t, prompt) - e(x_t, negative))

and the scheduler steps from x_t to x_{t-1}. Ho and Salimans, Classifier-Free Diffusion Guidance, 2022; Lu et al.,
DPM-Solver++, 2022; Zhao et al., UniPC, 2023; Song et al., DDIM, 2021; Luo et al., Latent Consistency Models, 2023;
starting from a noised image: Meng et al., SDEdit, 2022.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, LCMScheduler, UniPCMultistepScheduler
from torch import Tensor, nn

from generators.base import MOST_STEPS
from generators.source_images import steps_of
from rebalance.errors import InputError, nearest

_SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpmsolver++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": (UniPCMultistepScheduler, {}),
    # A clipped sample pulls latents, which reach beyond [-1, 1], to grey, and the more steps the more so.
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "lcm": (LCMScheduler, {"clip_sample": False}),
}
SCHEDULERS = tuple(_SCHEDULERS)
_LCM_STEPS = 50
"""The LCM sampler skips along as many steps as its teacher took."""


@dataclass(frozen=True)
class Sampling:
    """How images are sampled.

    Args:
        steps: Of the scheduler; from a source image int(steps · strength) of them are run.
        guidance: Strength w; 1 or less is none. Far lower than for single pictures, since a classifier learns from
            what differs between images.
        scheduler: One of `SCHEDULERS`.
        strength: How far a source image is noised, (0, 1]; None starts from noise.
    """

    steps: int = 20
    guidance: float = 2.0
    scheduler: str = "dpmsolver++"
    strength: float | None = None

    def __post_init__(self) -> None:
        if self.scheduler not in SCHEDULERS:
            raise InputError("a known scheduler", repr(self.scheduler), nearest(self.scheduler, SCHEDULERS))
        most = _LCM_STEPS if self.scheduler == "lcm" else MOST_STEPS
        if not 1 <= self.steps <= most:
            raise InputError(f"1 to {most} steps of {self.scheduler}", str(self.steps), "choose for example 20")
        if not 0 <= self.guidance <= 30:
            raise InputError("guidance from 0 to 30", str(self.guidance), "2 keeps images diverse")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise InputError("strength above 0, at most 1", str(self.strength), "choose for example 0.6")
        if self.n_updates < 1:
            raise InputError(
                "int(steps × strength) of at least 1",
                f"{self.steps} × {self.strength}",
                f"raise strength to {math.ceil(100 / self.steps) / 100:g}, or take more steps",
            )

    @property
    def n_updates(self) -> int:
        """Steps that are run."""
        return self.steps if self.strength is None else steps_of(self.steps, self.strength)


@dataclass(frozen=True)
class Condition:
    """What a batch is told, row by row.

    Args:
        prompt: Text states (B, L, D).
        negative: Of the negative prompts (B, L, D).
        prompt_pooled: SDXL's pooled texts (B, P), else None.
        negative_pooled: The same of the negative prompts.
    """

    prompt: Tensor
    negative: Tensor
    prompt_pooled: Tensor | None = None
    negative_pooled: Tensor | None = None


def make_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A new scheduler for the noise schedule that a checkpoint was trained with.

    Args:
        name: One of `SCHEDULERS`.
        config: The checkpoint's scheduler configuration; its betas and prediction type count.
    """
    kind, options = _SCHEDULERS[name]
    known = set(inspect.signature(kind.__init__).parameters)
    kept = {key: value for key, value in config.items() if key in known}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy 2's, from the constructors
        return kind.from_config({**kept, **options})


def sample_latents(
    unet: nn.Module,
    scheduler: Any,
    condition: Condition,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    *,
    size: tuple[int, int],
    pixels_per_latent: int,
    dtype: torch.dtype,
    source: Tensor | None = None,
) -> Tensor:
    """Latents (B, C, H, W) float32 on the device of the condition.

    Args:
        unet: Predicts what the scheduler's `prediction_type` says.
        scheduler: A new one.
        condition: What each row is told.
        sampling: Steps, guidance, strength.
        generators: One on the CPU for each row; the noise of a row depends on nothing else.
        size: Height and width of the latents.
        pixels_per_latent: Of a side; SDXL is told the size in pixels.
        dtype: In which the U-Net runs.
        source: Latents of source images (B, C, H, W), where `sampling` has a strength.
    """
    device = condition.prompt.device
    batch = len(generators)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(sampling.steps, device=device)
    first = sampling.steps - sampling.n_updates
    timesteps = scheduler.timesteps[first * scheduler.order :]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first * scheduler.order)
    config: Any = unet.config
    noise = draw_noise(generators, (config.in_channels, *size)).to(device)
    if source is None:
        x = noise * scheduler.init_noise_sigma
    else:
        x = scheduler.add_noise(source.float(), noise, timesteps[:1].repeat(batch))

    distilled = config.time_cond_proj_dim is not None  # told the guidance, as latent consistency models are
    guided = sampling.guidance > 1 and not distilled
    told = _told(condition, guided, (size[0] * pixels_per_latent, size[1] * pixels_per_latent), dtype)
    if distilled:
        told["timestep_cond"] = _guidance_embedding(sampling.guidance - 1, config.time_cond_proj_dim, batch).to(
            device, dtype
        )
    options = {"generator": list(generators)} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for t in timesteps:
        both = torch.cat([x, x]) if guided else x
        predicted = unet(scheduler.scale_model_input(both, t).to(dtype), t, **told).sample.float()
        if guided:
            negative, positive = predicted.chunk(2)
            predicted = negative + sampling.guidance * (positive - negative)
        x = scheduler.step(predicted, t, x, **options).prev_sample
    latents: Tensor = x.float()
    return latents


def draw_noise(generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise (B, *shape) on the CPU, each row from its own generator."""
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def _told(condition: Condition, guided: bool, pixels: tuple[int, int], dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of the U-Net: with guidance the negative half of the batch comes first."""
    states, pooled = condition.prompt, condition.prompt_pooled
    if guided:
        states = torch.cat([condition.negative, states])
    told: dict[str, Any] = {"encoder_hidden_states": states.to(dtype)}
    if pooled is not None:
        assert condition.negative_pooled is not None
        pooled = torch.cat([condition.negative_pooled, pooled]) if guided else pooled
        # Original size, crop and target size, SDXL's micro-conditioning: a whole image of the size that is made.
        numbers = torch.tensor([*pixels, 0, 0, *pixels], device=states.device).expand(len(states), -1)
        told["added_cond_kwargs"] = {"text_embeds": pooled.to(dtype), "time_ids": numbers.float()}
    return told


def _guidance_embedding(excess: float, width: int, batch: int) -> Tensor:
    """Sinusoidal embedding (B, width) of 1000 · (w - 1), as latent consistency models were trained with."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000.0) / (half - 1)))
    angles = torch.tensor(1000.0 * excess) * frequencies
    embedding = torch.cat([angles.sin(), angles.cos(), torch.zeros(width % 2)])
    return embedding.expand(batch, -1)
