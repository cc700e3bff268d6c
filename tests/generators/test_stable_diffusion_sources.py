from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generators.base import Job
from generators.latent_sampling import Sampling
from generators.stable_diffusion import StableDiffusion
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_settings import ImageSettings
from rebalance.data.decoding import decode
from rebalance.data.table import ByteArray, content_hash
from rebalance.errors import InputError, RunError

Plan = Callable[..., list[Job]]


def from_image(job: Job, source: str, strength: float) -> Job:
    return replace(job, settings={**job.settings, "mode": "image", "source": source, "strength": strength})


def save_as(mode: str, folder: Path, pixels: ByteArray) -> Path:
    image = Image.fromarray(pixels)
    file = folder / f"{mode.replace(';', '')}.png"
    if mode == "I;16":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(file)
    elif mode == "RGBA":
        image.putalpha(255)
        image.save(file)
    else:
        image.convert(mode).save(file)
    return file


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "I;16", "1"])
def test_sources_of_any_mode_are_read_as_colour(
    tiny_sd: Path, tmp_path: Path, tiny_generator: StableDiffusion, mode: str, text_plan: Plan
) -> None:
    # Four channels would pass for latents and give an image of twice the size; one channel would crash.
    pixels = np.repeat(np.where(np.eye(16, dtype=bool), 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    file = save_as(mode, tmp_path, pixels)
    sources = {content_hash(image).hex(): image for image in (str(file), pixels)}
    ours = StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(batch_size=2), sources=sources)
    job = text_plan(tiny_generator, 1)[0]
    images = ours.generate([from_image(job, name, 0.7) for name in sources])
    assert images.shape == (2, 3, 16, 16)
    assert torch.equal(images[0], images[1])


def test_strength_says_how_much_of_the_source_remains(
    tiny_generator: StableDiffusion, digit_sources: dict[str, ByteArray], text_plan: Plan
) -> None:
    name, pixels = next(iter(digit_sources.items()))
    source = torch.from_numpy(decode(pixels, 16).copy()).permute(2, 0, 1) / 255
    jobs = [from_image(job, name, s) for s in (0.1, 0.5, 1.0) for job in text_plan(tiny_generator, 1, Sampling(10))[:4]]
    distance = (tiny_generator.generate(jobs) - source).square().mean(dim=(1, 2, 3)).view(3, 4).mean(dim=1)
    assert distance[0] < 0.02
    assert distance[0] < distance[1] < distance[2]


def test_a_source_that_is_missing_or_changed_is_refused(
    tiny_sd: Path, tiny_generator: StableDiffusion, tmp_path: Path, text_plan: Plan
) -> None:
    job = text_plan(tiny_generator, 1)[0]
    with pytest.raises(InputError, match="the source image of every job; got none for abc"):
        tiny_generator.generate([from_image(job, "abc", 0.7)])
    file = tmp_path / "source.png"
    Image.new("RGB", (16, 16)).save(file)
    name = content_hash(str(file)).hex()
    ours = StableDiffusion(open_checkpoint(tiny_sd), sources={name: str(file)})
    Image.new("RGB", (16, 16), "red").save(file)
    with pytest.raises(InputError, match=r"as they were planned; got .*source\.png was changed"):
        ours.generate([from_image(job, name, 0.7)])
    file.unlink()
    with pytest.raises(RunError, match="cannot read the source image"):
        ours.generate([from_image(job, name, 0.7)])
