from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from generators.base import Job
from generators.stable_diffusion import StableDiffusion
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_settings import ImageSettings
from rebalance.errors import InputError

Plan = Callable[..., list[Job]]


def test_images_are_resized_with_antialiasing(tiny_sd: Path, tiny_generator: StableDiffusion, text_plan: Plan) -> None:
    small = StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(batch_size=4, output_size=4))
    jobs = text_plan(tiny_generator, 1)[:2]
    images = small.generate(jobs)
    assert images.shape == (2, 3, 4, 4)
    blocks = torch.nn.functional.avg_pool2d(tiny_generator.generate(jobs), 4)
    assert (images - blocks).abs().mean() < 0.05
    assert images.min() >= 0
    assert images.max() <= 1


def test_another_size_than_the_models_own(tiny_sd: Path, text_plan: Plan) -> None:
    generator = StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(size=22, batch_size=1))
    assert generator.generate(text_plan(generator, 1)[:1]).shape == (1, 3, 22, 22)
    with pytest.raises(InputError, match="a multiple of 2 px; got 15 px; the model's own is 16 px"):
        StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(size=15))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_and_stays_near(
    tiny_sd: Path, tiny_generator: StableDiffusion, dtype: str, text_plan: Plan
) -> None:
    half = StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(batch_size=4, dtype=dtype))
    assert half.unet.dtype == getattr(torch, dtype)
    assert half.vae.dtype == (torch.bfloat16 if dtype == "bfloat16" else torch.float32)  # float16 decoders overflow
    jobs = text_plan(tiny_generator, 1)[:3]
    images = half.generate(jobs)
    assert images.dtype == torch.float32
    assert (images - tiny_generator.generate(jobs)).abs().mean() < 0.02
    assert torch.equal(half.generate(jobs[1:2])[0], images[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ImageSettings(dtype="fp8"), "dtype auto, float32"),
        (ImageSettings(batch_size=-1), "a batch of at least 1"),
        (ImageSettings(output_size=-4), "an output size"),
    ],
)
def test_impossible_settings_are_refused(tiny_sd: Path, settings: ImageSettings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        StableDiffusion(open_checkpoint(tiny_sd), settings)
