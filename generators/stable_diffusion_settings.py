"""What all images of a Stable Diffusion generator share, beside its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from generators.stable_diffusion_checkpoint import Checkpoint
from rebalance.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BATCH_PIXELS, _BATCH_PIXELS_CPU, _LARGEST_BATCH = 16 * 512**2, 2 * 512**2, 64


@dataclass(frozen=True)
class ImageSettings:
    """What all images of a generator share, beside its weights.

    Args:
        size: Height and width, px; by default what the U-Net was trained at. SD 1.5 degrades below 384 px.
        output_size: Height and width of the images handed out, by an antialiased resize; by default `size`.
        batch_size: Images sampled at a time; by default so many that a batch has the pixels of 16 images of 512 px
            (2 on a CPU), at most 64.
        dtype: float32, bfloat16, float16, or auto: bfloat16 on CUDA, float32 elsewhere.
        safety_checker: Run the checkpoint's safety checker, where it has one.
        compile: Compile U-Net and decoder; pays from some hundred images on.
    """

    size: int | None = None
    output_size: int | None = None
    batch_size: int | None = None
    dtype: str = "auto"
    safety_checker: bool = True
    compile: bool = False


def resolve_settings(settings: ImageSettings, checkpoint: Checkpoint, device: torch.device) -> ImageSettings:
    """`settings` with every default replaced by its value for this checkpoint and device.

    Raises:
        InputError: A value that is not possible.
    """
    scale = checkpoint.pixels_per_latent
    native = checkpoint.config("unet")["sample_size"] * scale
    size = settings.size or native
    if size < scale or size % scale:
        raise InputError(f"a size that is a multiple of {scale} px", f"{size} px", f"the model's own is {native} px")
    if settings.output_size is not None and settings.output_size < 1:
        raise InputError("an output size of at least 1 px", str(settings.output_size), "leave it out for the size made")
    pixels = _BATCH_PIXELS_CPU if device.type == "cpu" else _BATCH_PIXELS
    batch = settings.batch_size or min(_LARGEST_BATCH, max(1, pixels // size**2))
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device.type == "cuda" else "float32"
    if dtype not in DTYPES:
        raise InputError("dtype auto, float32, bfloat16 or float16", repr(dtype), "leave it at auto")
    if batch < 1:
        raise InputError("a batch of at least 1 image", str(batch), "leave it out for the default")
    return ImageSettings(size, settings.output_size or size, batch, dtype, settings.safety_checker, settings.compile)
