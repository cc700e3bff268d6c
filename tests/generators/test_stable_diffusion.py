from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from sklearn.svm import SVC

from generators.base import Job
from generators.latent_sampling import SCHEDULERS, Sampling, make_scheduler
from generators.prompts import make_prompts
from generators.stable_diffusion import StableDiffusion
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_settings import ImageSettings
from rebalance.data.decoding import decode
from rebalance.data.digits import read_digits
from rebalance.data.table import ByteArray

Copy = Callable[[Path], Path]
Plan = Callable[..., list[Job]]
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def from_image(job: Job, source: str, strength: float) -> Job:
    return replace(job, settings={**job.settings, "mode": "image", "source": source, "strength": strength})


def with_settings(job: Job, **settings: Any) -> Job:
    return replace(job, settings={**job.settings, **settings})


# Right images


def test_a_classifier_of_real_digits_names_the_images(tiny_sd: Path, text_plan: Plan) -> None:
    train = read_digits().train
    real = np.stack([decode(image, 16) for image in train.images]).mean(axis=3).reshape(len(train), -1) / 255
    classifier = SVC().fit(real, train.targets)
    generator = StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(batch_size=50))
    jobs = text_plan(generator, 10, Sampling())
    made = generator.generate_checked(jobs)
    assert made.failures == [""] * 100
    named = classifier.predict(made.images.mean(dim=1).flatten(1).numpy())
    right = np.mean(named == [job.label for job in jobs])
    assert right >= 0.8, f"{right:.0%} of the images are what they should be"


def as_pipeline(kind: Any, folder: Path, scheduler: str) -> Any:
    pipe = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    pipe.scheduler = make_scheduler(scheduler, pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(jobs: list[Job]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(job.seed) for job in jobs]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_images_equal_those_of_the_diffusers_pipeline(
    tiny_generator: StableDiffusion, tiny_sd: Path, scheduler: str, text_plan: Plan
) -> None:
    jobs = text_plan(tiny_generator, 1, Sampling(4, 3.0, scheduler))[:4]
    expected = as_pipeline(StableDiffusionPipeline, tiny_sd, scheduler)(
        [job.settings["prompt"] for job in jobs],
        negative_prompt=["dark"] * 4,
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=seeded(jobs),
        output_type="pt",
    ).images
    torch.testing.assert_close(tiny_generator.generate(jobs), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_images_from_images_equal_those_of_the_diffusers_pipeline(
    tiny_generator: StableDiffusion, tiny_sd: Path, digit_sources: dict[str, ByteArray], scheduler: str, text_plan: Plan
) -> None:
    names = [*digit_sources, next(iter(digit_sources))]
    pairs = zip(text_plan(tiny_generator, 1, Sampling(5, 2.0, scheduler))[:4], names, strict=True)
    jobs = [from_image(job, name, 0.7) for job, name in pairs]
    expected = as_pipeline(StableDiffusionImg2ImgPipeline, tiny_sd, scheduler)(
        [job.settings["prompt"] for job in jobs],
        image=[Image.fromarray(decode(digit_sources[name], 16)) for name in names],
        strength=0.7,
        negative_prompt=["dark"] * 4,
        num_inference_steps=5,
        guidance_scale=2.0,
        generator=seeded(jobs),
        output_type="pt",
    ).images
    torch.testing.assert_close(tiny_generator.generate(jobs), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("negative", ["", "dark"])  # SDXL takes zeros for an empty one
def test_images_of_sdxl_equal_those_of_the_diffusers_pipeline(
    tiny_sdxl: Path, digit_sources: dict[str, ByteArray], negative: str, text_plan: Plan
) -> None:
    generator = StableDiffusion(open_checkpoint(tiny_sdxl), ImageSettings(batch_size=2), sources=digit_sources)
    prompts = make_prompts(NAMES, negative=negative)
    jobs = text_plan(generator, 1, Sampling(4, 3.0), prompts)[:2]
    told: dict[str, Any] = {
        "prompt": [job.settings["prompt"] for job in jobs],
        "negative_prompt": [negative] * 2 if negative else None,
        "guidance_scale": 3.0,
        "num_inference_steps": 4,
        "output_type": "pt",
    }
    pipe = as_pipeline(StableDiffusionXLPipeline, tiny_sdxl, "dpmsolver++")
    expected = pipe(**told, generator=seeded(jobs), height=16, width=16).images
    torch.testing.assert_close(generator.generate(jobs), expected, rtol=0, atol=1e-4)

    names = list(digit_sources)[:2]
    images = [Image.fromarray(decode(digit_sources[name], 16)) for name in names]
    pipe = as_pipeline(StableDiffusionXLImg2ImgPipeline, tiny_sdxl, "dpmsolver++")
    expected = pipe(**told, image=images, strength=0.5, generator=seeded(jobs)).images
    ours = generator.generate([from_image(job, name, 0.5) for job, name in zip(jobs, names, strict=True)])
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_a_latent_consistency_model_is_told_the_guidance(tiny_sd: Path, copy_of: Copy, text_plan: Plan) -> None:
    folder = copy_of(tiny_sd)
    config = UNet2DConditionModel.load_config(folder / "unet")
    torch.manual_seed(0)
    UNet2DConditionModel.from_config({**config, "time_cond_proj_dim": 10}).save_pretrained(folder / "unet")
    generator = StableDiffusion(open_checkpoint(folder), ImageSettings(batch_size=2))
    jobs = text_plan(generator, 1, Sampling(4, 6.0, "lcm"))[:2]
    expected = as_pipeline(StableDiffusionPipeline, folder, "lcm")(
        [job.settings["prompt"] for job in jobs],
        num_inference_steps=4,
        guidance_scale=6.0,
        generator=seeded(jobs),
        output_type="pt",
    ).images
    images = generator.generate(jobs)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-4)
    weaker = generator.generate([with_settings(job, guidance=2.0) for job in jobs])
    assert not torch.equal(images, weaker)


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0])
def test_guidance_of_one_or_less_is_none(tiny_generator: StableDiffusion, guidance: float, text_plan: Plan) -> None:
    jobs = text_plan(tiny_generator, 1, Sampling(3, guidance))[:2]
    plain = tiny_generator.generate([with_settings(job, guidance=1.0, negative="bright") for job in jobs])
    assert torch.equal(tiny_generator.generate(jobs), plain)


def test_class_prompts_are_told_apart(tiny_generator: StableDiffusion, text_plan: Plan) -> None:
    jobs = [replace(job, seed=7) for job in text_plan(tiny_generator, 1)]
    images = tiny_generator.generate(jobs)
    assert len({image.numpy().tobytes() for image in images}) == 10


# One job, one image


def test_an_image_depends_on_its_job_alone(
    tiny_generator: StableDiffusion, digit_sources: dict[str, ByteArray], text_plan: Plan
) -> None:
    text = text_plan(tiny_generator, 2, Sampling(3, 2.0))
    source = list(digit_sources)
    jobs = [
        *text[:9],
        *(with_settings(job, guidance=1.0) for job in text[9:12]),
        *(with_settings(job, scheduler="lcm") for job in text[12:15]),
        *(from_image(job, source[i % 3], (0.4, 0.9)[i % 2]) for i, job in enumerate(text[15:])),
    ]
    together = tiny_generator.generate(jobs)
    order = np.random.default_rng(0).permutation(len(jobs))
    shuffled = torch.empty_like(together)
    shuffled[order] = tiny_generator.generate([jobs[i] for i in order])
    assert torch.equal(shuffled, together)
    for i in (0, 8, 10, 13, 17):
        assert torch.equal(tiny_generator.generate([jobs[i]])[0], together[i])
    ranks = [tiny_generator.generate(jobs[rank::3]) for rank in range(3)]
    for rank in range(3):
        assert torch.equal(ranks[rank], together[rank::3])


def test_a_second_load_makes_the_same_bytes(tiny_generator: StableDiffusion, tiny_sd: Path, text_plan: Plan) -> None:
    again = StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(batch_size=4))
    assert again.fingerprint == tiny_generator.fingerprint
    jobs = text_plan(tiny_generator, 1)[:3]
    assert torch.equal(again.generate(jobs), tiny_generator.generate(jobs))


def test_no_global_random_state_is_touched(tiny_generator: StableDiffusion, text_plan: Plan) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    tiny_generator.generate(text_plan(tiny_generator, 1, Sampling(2, 2.0, "lcm"))[:1])
    assert torch.equal(torch.get_rng_state(), state)


def test_no_job_makes_no_image(tiny_generator: StableDiffusion) -> None:
    assert tiny_generator.generate([]).shape == (0, 3, 16, 16)


@pytest.mark.parametrize(
    "settings",
    [
        ImageSettings(batch_size=3),
        ImageSettings(batch_size=4, size=24),
        ImageSettings(batch_size=4, dtype="bfloat16"),
        ImageSettings(batch_size=4, output_size=8),
        ImageSettings(batch_size=4, safety_checker=False),
    ],
)
def test_the_fingerprint_covers_what_shapes_an_image(
    tiny_generator: StableDiffusion, tiny_sd: Path, settings: ImageSettings
) -> None:
    assert StableDiffusion(open_checkpoint(tiny_sd), settings).fingerprint != tiny_generator.fingerprint
