"""A class-conditional diffusion model trained on the data themselves: nothing is downloaded.

A U-Net learns to undo noise, told the class; with probability `label_drop` it is told the null class instead, so that
sampling can lean towards the class (classifier-free guidance). v-prediction, cosine noise schedule, averaged weights.
Ho and Salimans, Classifier-Free Diffusion Guidance, 2022; Salimans and Ho, Progressive Distillation, 2022, appendix D;
Nichol and Dhariwal, Improved DDPM, 2021.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self, final

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DModel
from safetensors.torch import load_file, save
from torch import Tensor, nn

from generators.base import Generated, Job, check_finite, group_jobs, to_pixels
from generators.compiling import compile_in_place
from generators.source_images import read_source, steps_of
from generators.told_augmentation import N_NUMBERS, tell
from rebalance import __version__
from rebalance.data.resizing import resize_images
from rebalance.data.table import Image
from rebalance.errors import InputError
from rebalance.files import read_json, write_json, write_tensors

NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
}
"""Of training and of every sampler: a sampler with another prediction type gives garbage without an error."""

_ATTENTION_SIZE = 16
"""Maps of this size (px) and below get self-attention."""


@dataclass(frozen=True)
class NetworkSettings:
    """The U-Net.

    Args:
        classes: Class names, by id.
        image_size: Height and width, px; divisible by 2 for every level but the first.
        channels: At each level.
        n_colours: 3, or 1 where all images are grey: a model of three channels tints them, and a classifier learns to
            tell made images by their tint.
        layers: Residual blocks at each level.
        dropout: In every residual block.
        told: Whether the network is told how images were augmented, see `told_augmentation`.
    """

    classes: tuple[str, ...]
    image_size: int
    channels: tuple[int, ...]
    n_colours: int = 3
    layers: int = 2
    dropout: float = 0.1
    told: bool = False

    def __post_init__(self) -> None:
        step = 2 ** (len(self.channels) - 1)
        if not self.channels or any(c < 8 or c % 8 for c in self.channels):
            raise InputError("channels that are multiples of 8", str(self.channels), "use for example 32 64")
        if self.image_size % step or self.image_size // step < 2:
            raise InputError(
                f"an image size that {len(self.channels)} levels halve evenly",
                f"{self.image_size} px",
                f"use a multiple of {step}, at least {2 * step}",
            )


def is_grey(images: Tensor) -> bool:
    """Whether the three channels of all images (N, 3, H, W) are equal."""
    return bool((images[:, 0] == images[:, 1]).all() and (images[:, 0] == images[:, 2]).all())


def build_unet(settings: NetworkSettings) -> UNet2DModel:
    """The untrained U-Net, with one class embedding more than there are classes: the null class."""
    levels = range(len(settings.channels))
    attention = [settings.image_size // 2**level <= _ATTENTION_SIZE and level > 0 for level in levels]
    return UNet2DModel(
        sample_size=settings.image_size,
        in_channels=settings.n_colours + (N_NUMBERS if settings.told else 0),
        out_channels=settings.n_colours,
        block_out_channels=settings.channels,
        down_block_types=tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attention),
        up_block_types=tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attention)),
        layers_per_block=settings.layers,
        attention_head_dim=math.gcd(32, *settings.channels),
        # Of 4 channels at least: time and class enter as a shift of each channel, which a group of one would take out.
        norm_num_groups=math.gcd(32, *(channels // 4 for channels in settings.channels)),
        num_class_embeds=len(settings.classes) + 1,
        dropout=settings.dropout,
    )


@final
class ClassConditionalGenerator:
    """A trained class-conditional diffusion model.

    A job's settings are `steps` and `guidance`, and where it begins from an image also its `strength` and `source`, the
    hash of the image, which `sources` holds; `generators.plan` and `generators.head_to_tail` write them.

    Args:
        unet: The (averaged) U-Net.
        settings: What it was built from.
        batch_size: Images sampled at a time; every batch is padded to it, since the shape changes the last bits.
        amp: "no" or "bf16".
        output_size: Height and width of the images handed out, by an antialiased resize; by default as they are made.
        compile: Compile the U-Net at the first batch, which takes a minute or more.
    """

    def __init__(
        self,
        unet: nn.Module,
        settings: NetworkSettings,
        *,
        batch_size: int = 128,
        amp: str = "no",
        output_size: int | None = None,
        compile: bool = False,
    ) -> None:
        self.unet = unet.eval().requires_grad_(False)
        if compile:
            compile_in_place(self.unet)
        self.settings = settings
        self.batch_size = batch_size
        self.amp = amp
        self.output_size = output_size
        self.sources: dict[str, Image] = {}
        self.fingerprint = hashlib.sha256(_weight_bytes(unet)).hexdigest()

    def to(self, device: torch.device | str) -> Self:
        """Move to `device`."""
        self.unet.to(device)
        return self

    @property
    def facts(self) -> dict[str, Any]:
        """See `ImageGenerator`."""
        device = next(self.unet.parameters()).device
        return {
            "network": f"class-conditional U-Net, {self.settings.image_size} px, trained on the data",
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "licence": "that of the training images",
            "versions": {"longtail-rebalance": __version__} | {name: version(name) for name in ("torch", "diffusers")},
        }

    def batches(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """See `ImageGenerator`: jobs of equal steps, guidance and strength."""
        return group_jobs(jobs, _kind, self.batch_size)

    def prepare(self, jobs: Sequence[Job]) -> None:
        """See `ImageGenerator`; there is nothing to prepare."""

    def generate_checked(self, jobs: Sequence[Job]) -> Generated:
        """See `ImageGenerator`."""
        return check_finite(self.generate(jobs))

    def generate(self, jobs: Sequence[Job]) -> Tensor:
        """Images (N, 3, S, S) of the jobs; those of one batch share steps, guidance and strength.

        Raises:
            InputError: Jobs of different kinds in one batch.
        """
        images = [torch.zeros((0, 3, self.settings.image_size, self.settings.image_size))]
        for start in range(0, len(jobs), self.batch_size):
            part = jobs[start : start + self.batch_size]
            kinds = set(map(_kind, part))
            if len(kinds) > 1:
                raise InputError(
                    "jobs of equal steps, guidance and strength", str(sorted(kinds)), "group the jobs by them"
                )
            images.append(self._sample(part, *kinds.pop()))
        return resize_images(torch.cat(images), self.output_size or self.settings.image_size)

    @torch.no_grad()
    def _sample(self, jobs: Sequence[Job], steps: int, guidance: float, strength: float) -> Tensor:
        device = next(self.unet.parameters()).device
        padded = [*jobs, *[jobs[-1]] * (self.batch_size - len(jobs))]
        shape = (self.settings.n_colours, self.settings.image_size, self.settings.image_size)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(job.seed)) for job in padded]
        x = torch.stack(noise).to(device)
        labels = torch.tensor([job.label for job in padded], device=device)
        null = torch.full_like(labels, len(self.settings.classes))
        scheduler = DPMSolverMultistepScheduler(**NOISE_SCHEDULE)
        scheduler.set_timesteps(steps, device=device)
        timesteps = scheduler.timesteps
        if strength:
            timesteps = timesteps[steps - steps_of(steps, strength) :]
            scheduler.set_begin_index(steps - len(timesteps))
            x = scheduler.add_noise(self._sources(padded).to(device), x, timesteps[:1].expand(len(x)))
        for t in timesteps:
            seen = tell(x, None) if self.settings.told else x
            with torch.autocast(device.type, torch.bfloat16, enabled=self.amp == "bf16"):
                if guidance == 1:
                    v = self.unet(seen, t, class_labels=labels).sample
                else:
                    both = self.unet(torch.cat([seen, seen]), t, class_labels=torch.cat([labels, null])).sample
                    conditional, unconditional = both.chunk(2)
                    v = unconditional + guidance * (conditional - unconditional)
            x = scheduler.step(v.float(), t, x).prev_sample
        return to_pixels(x[: len(jobs)]).expand(-1, 3, -1, -1).cpu()

    def _sources(self, jobs: Sequence[Job]) -> Tensor:
        """Source images of the jobs (B, C, S, S), -1 to 1."""
        names = [job.settings["source"] for job in jobs]
        arrays = {name: read_source(self.sources, name, self.settings.image_size) for name in dict.fromkeys(names)}
        pixels = torch.stack([torch.from_numpy(arrays[name].copy()) for name in names]).permute(0, 3, 1, 2)
        return pixels[:, : self.settings.n_colours].float() / 127.5 - 1

    def save(self, folder: Path) -> None:
        """Write weights and settings to `folder`: the weights last, so that a folder with weights is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "generator.json", {**asdict(self.settings), "noise_schedule": NOISE_SCHEDULE})
        write_tensors(folder / "unet.safetensors", self.unet.state_dict())

    @classmethod
    def load(cls, folder: Path, **sampling: Any) -> Self:
        """The model that `save` wrote.

        Args:
            folder: Where to.
            sampling: What the class takes beside network and settings.

        Raises:
            InputError: Missing or damaged files.
        """
        values: dict[str, Any] = read_json(folder / "generator.json")
        try:
            noise_schedule = values.pop("noise_schedule")
            lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
            settings = NetworkSettings(**{**values, **lists})
            unet = build_unet(settings)
            unet.load_state_dict(load_file(folder / "unet.safetensors"))
        except Exception as error:
            raise InputError("a whole generator folder", f"{folder}: {error}", "train the generator again") from error
        if noise_schedule != NOISE_SCHEDULE:
            raise InputError("a generator of this version's noise schedule", str(folder), "train the generator again")
        return cls(unet, settings, **sampling)


def _kind(job: Job) -> tuple[int, float, float]:
    """What the jobs of a batch share: steps, guidance, and strength, 0 without a source image."""
    return job.settings["steps"], job.settings["guidance"], job.settings.get("strength", 0.0)


def _weight_bytes(module: nn.Module) -> bytes:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    return save(dict(sorted(tensors.items())))
