from __future__ import annotations

import gc
import json
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
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from sklearn.svm import SVC
from torch import Tensor
from transformers import CLIPTextModel

from generators.base import Job
from generators.latent_sampling import SCHEDULERS, Sampling, make_scheduler
from generators.prompts import TEMPLATES, Prompts, make_prompts
from generators.safety import SafetyChecker
from generators.stable_diffusion import NOT_FINITE, UNSAFE, StableDiffusion
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_jobs import find_sources, image_jobs, text_jobs
from generators.stable_diffusion_settings import ImageSettings
from rebalance.data.decoding import decode
from rebalance.data.digits import read_digits
from rebalance.data.table import ByteArray, ImageTable, content_hash
from rebalance.errors import InputError, RunError

Copy = Callable[[Path], Path]
Edit = Callable[..., None]
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASSES = tuple(str(i) for i in range(10))
FEW = Sampling(steps=3)
PROMPTS = make_prompts(CLASSES, names=dict(zip(CLASSES, NAMES, strict=True)), negative="dark")


@pytest.fixture(scope="module")
def sources() -> dict[str, ByteArray]:
    """Three digits by hash, 8 px."""
    images = [np.asarray(image) for image in read_digits().train.images[:3]]
    return {content_hash(image).hex(): image for image in images}


@pytest.fixture(scope="module")
def generator(tiny_sd: Path, sources: dict[str, ByteArray]) -> StableDiffusion:
    return StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(batch_size=4), sources=sources)


def plan(generator: StableDiffusion, n: int, sampling: Sampling = FEW, prompts: Prompts = PROMPTS) -> list[Job]:
    jobs = text_jobs(generator.fingerprint, CLASSES, [n] * 10, prompts, sampling, reserve=0, seed=0)
    return [job for own in zip(*jobs, strict=True) for job in own]


def from_image(job: Job, source: str, strength: float) -> Job:
    return replace(job, settings={**job.settings, "mode": "image", "source": source, "strength": strength})


def with_settings(job: Job, **settings: Any) -> Job:
    return replace(job, settings={**job.settings, **settings})


# Right images


def test_a_classifier_of_real_digits_names_the_images(tiny_sd: Path) -> None:
    train = read_digits().train
    real = np.stack([decode(image, 16) for image in train.images]).mean(axis=3).reshape(len(train), -1) / 255
    classifier = SVC().fit(real, train.targets)
    generator = StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(batch_size=50))
    jobs = plan(generator, 10, Sampling())
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
    generator: StableDiffusion, tiny_sd: Path, scheduler: str
) -> None:
    jobs = plan(generator, 1, Sampling(4, 3.0, scheduler))[:4]
    expected = as_pipeline(StableDiffusionPipeline, tiny_sd, scheduler)(
        [job.settings["prompt"] for job in jobs],
        negative_prompt=["dark"] * 4,
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=seeded(jobs),
        output_type="pt",
    ).images
    torch.testing.assert_close(generator.generate(jobs), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_images_from_images_equal_those_of_the_diffusers_pipeline(
    generator: StableDiffusion, tiny_sd: Path, sources: dict[str, ByteArray], scheduler: str
) -> None:
    names = [*sources, next(iter(sources))]
    pairs = zip(plan(generator, 1, Sampling(5, 2.0, scheduler))[:4], names, strict=True)
    jobs = [from_image(job, name, 0.7) for job, name in pairs]
    expected = as_pipeline(StableDiffusionImg2ImgPipeline, tiny_sd, scheduler)(
        [job.settings["prompt"] for job in jobs],
        image=[Image.fromarray(decode(sources[name], 16)) for name in names],
        strength=0.7,
        negative_prompt=["dark"] * 4,
        num_inference_steps=5,
        guidance_scale=2.0,
        generator=seeded(jobs),
        output_type="pt",
    ).images
    torch.testing.assert_close(generator.generate(jobs), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("negative", ["", "dark"])  # SDXL takes zeros for an empty one
def test_images_of_sdxl_equal_those_of_the_diffusers_pipeline(
    tiny_sdxl: Path, sources: dict[str, ByteArray], negative: str
) -> None:
    generator = StableDiffusion(open_checkpoint(tiny_sdxl), ImageSettings(batch_size=2), sources=sources)
    prompts = make_prompts(NAMES, negative=negative)
    jobs = plan(generator, 1, Sampling(4, 3.0), prompts)[:2]
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

    names = list(sources)[:2]
    images = [Image.fromarray(decode(sources[name], 16)) for name in names]
    pipe = as_pipeline(StableDiffusionXLImg2ImgPipeline, tiny_sdxl, "dpmsolver++")
    expected = pipe(**told, image=images, strength=0.5, generator=seeded(jobs)).images
    ours = generator.generate([from_image(job, name, 0.5) for job, name in zip(jobs, names, strict=True)])
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_a_latent_consistency_model_is_told_the_guidance(tiny_sd: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_sd)
    config = UNet2DConditionModel.load_config(folder / "unet")
    torch.manual_seed(0)
    UNet2DConditionModel.from_config({**config, "time_cond_proj_dim": 10}).save_pretrained(folder / "unet")
    generator = StableDiffusion(open_checkpoint(folder), ImageSettings(batch_size=2))
    jobs = plan(generator, 1, Sampling(4, 6.0, "lcm"))[:2]
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
def test_guidance_of_one_or_less_is_none(generator: StableDiffusion, guidance: float) -> None:
    jobs = plan(generator, 1, Sampling(3, guidance))[:2]
    plain = generator.generate([with_settings(job, guidance=1.0, negative="bright") for job in jobs])
    assert torch.equal(generator.generate(jobs), plain)


def test_class_prompts_are_told_apart(generator: StableDiffusion) -> None:
    jobs = [replace(job, seed=7) for job in plan(generator, 1)]
    images = generator.generate(jobs)
    assert len({image.numpy().tobytes() for image in images}) == 10


# One job, one image


def test_an_image_depends_on_its_job_alone(generator: StableDiffusion, sources: dict[str, ByteArray]) -> None:
    text = plan(generator, 2, Sampling(3, 2.0))
    source = list(sources)
    jobs = [
        *text[:9],
        *(with_settings(job, guidance=1.0) for job in text[9:12]),
        *(with_settings(job, scheduler="lcm") for job in text[12:15]),
        *(from_image(job, source[i % 3], (0.4, 0.9)[i % 2]) for i, job in enumerate(text[15:])),
    ]
    together = generator.generate(jobs)
    order = np.random.default_rng(0).permutation(len(jobs))
    shuffled = torch.empty_like(together)
    shuffled[order] = generator.generate([jobs[i] for i in order])
    assert torch.equal(shuffled, together)
    for i in (0, 8, 10, 13, 17):
        assert torch.equal(generator.generate([jobs[i]])[0], together[i])
    ranks = [generator.generate(jobs[rank::3]) for rank in range(3)]
    for rank in range(3):
        assert torch.equal(ranks[rank], together[rank::3])


def test_a_second_load_makes_the_same_bytes(generator: StableDiffusion, tiny_sd: Path) -> None:
    again = StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(batch_size=4))
    assert again.fingerprint == generator.fingerprint
    jobs = plan(generator, 1)[:3]
    assert torch.equal(again.generate(jobs), generator.generate(jobs))


def test_no_global_random_state_is_touched(generator: StableDiffusion) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    generator.generate(plan(generator, 1, Sampling(2, 2.0, "lcm"))[:1])
    assert torch.equal(torch.get_rng_state(), state)


def test_no_job_makes_no_image(generator: StableDiffusion) -> None:
    assert generator.generate([]).shape == (0, 3, 16, 16)


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
    generator: StableDiffusion, tiny_sd: Path, settings: ImageSettings
) -> None:
    assert StableDiffusion(open_checkpoint(tiny_sd), settings).fingerprint != generator.fingerprint


# Text encoders


def test_text_encoders_are_freed_and_loaded_only_for_new_prompts(
    generator: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Any] = []
    real = CLIPTextModel.from_pretrained
    monkeypatch.setattr(CLIPTextModel, "from_pretrained", lambda *a, **k: loads.append(a) or real(*a, **k))
    prompts = make_prompts(NAMES, templates=["{name} {name}"])
    generator.embed(prompts.distinct())
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is CLIPTextModel]
    assert len(loads) == 1
    generator.generate(plan(generator, 1, FEW, prompts))
    assert len(loads) == 1


def test_too_long_a_prompt_is_refused(generator: StableDiffusion) -> None:
    prompts = make_prompts(NAMES, templates=["a " * 80 + "{name}"])
    assert generator.n_tokens(prompts(0, 0)) == 83
    with pytest.raises(InputError, match="at most 77 tokens; got 83"):
        generator.generate(plan(generator, 1, FEW, prompts)[:1])


def test_prompts_that_the_tokenizer_cannot_tell_apart_are_refused(tiny_sd: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_sd)
    file = folder / "tokenizer" / "tokenizer.json"
    told = json.loads(file.read_text())
    told["model"]["merges"] = []
    told["model"]["vocab"] = {piece: i for piece, i in told["model"]["vocab"].items() if len(piece) > 5 or i < 2}
    told["model"]["vocab"] |= {f"<pad-{i}>": 3 + i for i in range(300)}
    file.write_text(json.dumps(told))
    generator = StableDiffusion(open_checkpoint(folder), ImageSettings(batch_size=2))
    with pytest.raises(InputError, match="a tokenizer that tells prompts apart; got the same ids"):
        generator.generate(plan(generator, 1)[:2])


def test_a_token_that_nobody_learnt_is_refused(generator: StableDiffusion) -> None:
    job = with_settings(plan(generator, 1)[0], prompt="a photo of a <class-3> zero")
    with pytest.raises(InputError, match="learnt tokens only; got <class-3>"):
        generator.generate([job])


# Sources


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
    tiny_sd: Path, tmp_path: Path, generator: StableDiffusion, mode: str
) -> None:
    # Four channels would pass for latents and give an image of twice the size; one channel would crash.
    pixels = np.repeat(np.where(np.eye(16, dtype=bool), 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    file = save_as(mode, tmp_path, pixels)
    sources = {content_hash(image).hex(): image for image in (str(file), pixels)}
    ours = StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(batch_size=2), sources=sources)
    job = plan(generator, 1)[0]
    images = ours.generate([from_image(job, name, 0.7) for name in sources])
    assert images.shape == (2, 3, 16, 16)
    assert torch.equal(images[0], images[1])


def test_strength_says_how_much_of_the_source_remains(
    generator: StableDiffusion, sources: dict[str, ByteArray]
) -> None:
    name, pixels = next(iter(sources.items()))
    source = torch.from_numpy(decode(pixels, 16).copy()).permute(2, 0, 1) / 255
    jobs = [from_image(job, name, s) for s in (0.1, 0.5, 1.0) for job in plan(generator, 1, Sampling(10))[:4]]
    distance = (generator.generate(jobs) - source).square().mean(dim=(1, 2, 3)).view(3, 4).mean(dim=1)
    assert distance[0] < 0.02
    assert distance[0] < distance[1] < distance[2]


def test_a_source_that_is_missing_or_changed_is_refused(
    tiny_sd: Path, generator: StableDiffusion, tmp_path: Path
) -> None:
    job = plan(generator, 1)[0]
    with pytest.raises(InputError, match="the source image of every job; got none for abc"):
        generator.generate([from_image(job, "abc", 0.7)])
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


# Failures


def test_images_that_are_not_finite_are_nan_and_never_black(tiny_sd: Path, copy_of: Copy, edit_weights: Edit) -> None:
    folder = copy_of(tiny_sd)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    edit_weights(file, lambda name, tensor: tensor.fill_(torch.inf) if name == "conv_in.bias" else tensor)
    generator = StableDiffusion(open_checkpoint(folder), ImageSettings(batch_size=2))
    made = generator.generate_checked(plan(generator, 1)[:3])
    assert made.failures == [NOT_FINITE] * 3
    assert made.images.isnan().all()


def objecting(folder: Path, edit_weights: Edit, threshold: float) -> None:
    """Let the safety checker object to every cosine above a threshold."""

    def change(name: str, tensor: Tensor) -> Tensor:
        stream = torch.Generator().manual_seed(len(name))
        if name in ("concept_embeds", "special_care_embeds"):
            return torch.randn(tensor.shape, generator=stream).to(tensor.dtype)
        return torch.full_like(tensor, threshold) if name.endswith("embeds_weights") else tensor

    edit_weights(folder / "safety_checker" / "model.safetensors", change)


def test_images_that_the_safety_checker_objects_to_are_reported_and_never_black(
    tiny_sd: Path, copy_of: Copy, edit_weights: Edit, generator: StableDiffusion
) -> None:
    folder = copy_of(tiny_sd)
    objecting(folder, edit_weights, -1.0)
    jobs = plan(generator, 1)[:3]
    strict = StableDiffusion(open_checkpoint(folder), ImageSettings(batch_size=4))
    made = strict.generate_checked(jobs)
    assert made.failures == [UNSAFE] * 3
    assert made.images.isnan().all()
    assert strict.facts["safety_checker"] == "on"
    assert strict.generate(jobs).isnan().all()

    off = StableDiffusion(open_checkpoint(folder), ImageSettings(batch_size=4, safety_checker=False))
    assert off.facts["safety_checker"] == "off"
    assert torch.equal(off.generate(jobs), generator.generate(jobs))


@pytest.mark.parametrize("threshold", [-0.1, 0.1, 0.3])
def test_flags_equal_those_of_the_original_checker(
    tiny_sd: Path, copy_of: Copy, edit_weights: Edit, threshold: float
) -> None:
    folder = copy_of(tiny_sd)
    objecting(folder, edit_weights, threshold)
    ours = SafetyChecker(open_checkpoint(folder), torch.float32, torch.device("cpu"))
    original = StableDiffusionSafetyChecker.from_pretrained(folder / "safety_checker", dtype=torch.float32)
    images = torch.rand((64, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    images = images * torch.linspace(0, 1, 64).view(-1, 1, 1, 1)
    pixels = (images - ours.mean) / ours.std
    flags = original(pixels, torch.zeros(64, 1))[1]
    assert ours(images).tolist() == flags


def test_a_checkpoint_without_a_safety_checker_says_so(tiny_sdxl: Path) -> None:
    generator = StableDiffusion(open_checkpoint(tiny_sdxl), ImageSettings(batch_size=2))
    assert generator.facts["safety_checker"] == "none came with it"
    assert generator.generate_checked(plan(generator, 1)[:1]).failures == [""]


# Settings


def test_images_are_resized_with_antialiasing(tiny_sd: Path, generator: StableDiffusion) -> None:
    small = StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(batch_size=4, output_size=4))
    jobs = plan(generator, 1)[:2]
    images = small.generate(jobs)
    assert images.shape == (2, 3, 4, 4)
    blocks = torch.nn.functional.avg_pool2d(generator.generate(jobs), 4)
    assert (images - blocks).abs().mean() < 0.05
    assert images.min() >= 0
    assert images.max() <= 1


def test_another_size_than_the_models_own(tiny_sd: Path) -> None:
    generator = StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(size=22, batch_size=1))
    assert generator.generate(plan(generator, 1)[:1]).shape == (1, 3, 22, 22)
    with pytest.raises(InputError, match="a multiple of 2 px; got 15 px; the model's own is 16 px"):
        StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(size=15))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_and_stays_near(tiny_sd: Path, generator: StableDiffusion, dtype: str) -> None:
    half = StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(batch_size=4, dtype=dtype))
    assert half.unet.dtype == getattr(torch, dtype)
    assert half.vae.dtype == (torch.bfloat16 if dtype == "bfloat16" else torch.float32)  # float16 decoders overflow
    jobs = plan(generator, 1)[:3]
    images = half.generate(jobs)
    assert images.dtype == torch.float32
    assert (images - generator.generate(jobs)).abs().mean() < 0.02
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


# Sampling


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": "dpmsolver"}, r"did you mean 'dpmsolver\+\+'"),
        ({"steps": 0}, "1 to 1000 steps"),
        ({"steps": 51, "scheduler": "lcm"}, "1 to 50 steps of lcm"),
        ({"guidance": -1.0}, "guidance from 0 to 30"),
        ({"strength": 0.0}, "strength above 0"),
        ({"strength": 1.1}, "strength above 0"),
        ({"steps": 20, "strength": 0.04}, r"at least 1; got 20 × 0.04; raise strength to 0.05"),
        ({"steps": 4, "strength": 0.2}, r"raise strength to 0.25"),
        ({"steps": 1, "strength": 0.9}, r"raise strength to 1,"),
    ],
)
def test_samplings_that_make_no_image_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**options)


@pytest.mark.parametrize("steps", range(1, 60))
def test_the_strength_that_is_advised_is_enough(steps: int) -> None:
    with pytest.raises(InputError) as caught:
        Sampling(steps=steps, strength=0.5 / steps)
    advised = float(caught.value.fix.split()[3].strip(","))
    assert Sampling(steps=steps, strength=advised).n_updates >= 1


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers_keep_the_checkpoints_noise_and_target_and_never_clip(scheduler: str) -> None:
    config = {
        "_class_name": "DDPMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_end": 0.03,
        "prediction_type": "v_prediction",
        "clip_sample": True,
        "skip_prk_steps": True,
    }
    made = make_scheduler(scheduler, config)
    assert made.config.beta_end == 0.03
    assert made.config.prediction_type == "v_prediction"
    assert not made.config.get("clip_sample", False)


def test_ddim_reaches_the_extremes(tiny_sd: Path, copy_of: Copy, edit_json: Edit) -> None:
    folder = copy_of(tiny_sd)
    edit_json(folder / "scheduler" / "scheduler_config.json", clip_sample=True)
    clipping = StableDiffusion(open_checkpoint(folder), ImageSettings(batch_size=10))
    faithful = StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(batch_size=10))
    jobs = plan(faithful, 1, Sampling(10, 2.0, "ddim"))
    assert torch.equal(clipping.generate(jobs), faithful.generate(jobs))


# Plans


def test_seeds_are_32_bits_and_unique_within_a_class(generator: StableDiffusion) -> None:
    jobs = text_jobs("", CLASSES, [2000, *[0] * 9], PROMPTS, FEW, reserve=0.5, seed=0)
    seeds = [job.seed for job in jobs[0]]
    assert len(set(seeds)) == len(seeds) == 3000
    assert max(seeds) < 2**32
    assert not any(jobs[1:])


def test_text_jobs_take_the_prompts_in_turn() -> None:
    jobs = text_jobs("f", CLASSES, [12] * 10, PROMPTS, FEW, reserve=0, seed=0, adapter="abc")
    assert [job.settings["prompt"] for job in jobs[3]] == [PROMPTS(3, i) for i in range(12)]
    assert len({job.settings["prompt"] for job in jobs[3]}) == len(TEMPLATES)
    assert jobs[3][0].settings == {
        "mode": "text",
        "prompt": PROMPTS(3, 0),
        "negative": "dark",
        "steps": 3,
        "guidance": 2.0,
        "scheduler": "dpmsolver++",
        "adapter": "abc",
    }
    assert len({job.id for own in jobs for job in own}) == 120


def table(counts: dict[str, int]) -> ImageTable:
    images = [np.full((4, 4, 3), 10 * label + i, np.uint8) for label, n in enumerate(counts.values()) for i in range(n)]
    targets = np.repeat(np.arange(len(counts)), list(counts.values()))
    return ImageTable(images, targets, tuple(counts))


def test_image_jobs_mix_sources_and_strengths() -> None:
    data = table({"head": 6, "tail": 5})
    budget = [0, 40]
    sources = find_sources(data, budget)
    prompts = make_prompts(data.classes)
    (none, jobs) = image_jobs("f", data.classes, budget, prompts, Sampling(10), sources, reserve=0, seed=0)
    assert none == []
    own = {content_hash(image).hex() for image in data.images[6:]}
    pairs = [(job.settings["source"], job.settings["strength"]) for job in jobs]
    assert {source for source, _ in pairs} == own
    assert len(set(pairs[:20])) == 20  # every source at every strength before any pair comes again
    assert len({source for source, _ in pairs[:5]}) == 5
    assert not any(job.settings["donor"] for job in jobs)
    assert all(content_hash(image).hex() == name for name, image in sources.images.items())


def test_small_classes_borrow_images_of_frequent_ones_at_the_largest_strength() -> None:
    data = table({"head": 8, "middle": 6, "tail": 2, "empty": 0})
    budget = [0, 0, 10, 10]
    sources = find_sources(data, budget, min_sources=4)
    assert [len(part) for part in sources.own] == [0, 0, 2, 0]
    assert [len(part) for part in sources.donors] == [0, 0, 2, 4]
    jobs = image_jobs("f", data.classes, budget, make_prompts(data.classes), Sampling(10), sources, reserve=0, seed=0)
    lenders = {content_hash(image).hex() for image in data.images[:14]}
    for job in [*jobs[2], *jobs[3]]:
        assert job.settings["donor"] == (job.settings["source"] in lenders)
        if job.settings["donor"]:
            assert job.settings["strength"] == 0.85


def test_a_class_without_images_needs_donors() -> None:
    data = table({"head": 8, "empty": 0})
    with pytest.raises(InputError, match="source images for every class in mode image; got none for empty"):
        find_sources(data, [0, 3], min_sources=0)
    assert find_sources(data, [5, 0], min_sources=0).own[1] == ()


def test_strengths_that_run_no_step_are_refused_when_planning() -> None:
    data = table({"head": 8, "tail": 5})
    sources = find_sources(data, [0, 3])
    with pytest.raises(InputError, match=r"at least 1; got 4 × 0\.2"):
        image_jobs(
            "f", data.classes, [0, 3], make_prompts(data.classes), Sampling(4), sources,
            strengths=[0.2, 0.5], reserve=0, seed=0,
        )  # fmt: skip


def test_a_plan_does_not_depend_on_anything_but_its_inputs() -> None:
    data = table({"head": 8, "tail": 5})
    plans = [
        image_jobs(
            "f", data.classes, [0, 9], make_prompts(data.classes), FEW, find_sources(data, [0, 9]), reserve=0.5, seed=3
        )
        for _ in range(2)
    ]
    assert [[job.id for job in own] for own in plans[0]] == [[job.id for job in own] for own in plans[1]]


def test_plans_run(generator: StableDiffusion) -> None:
    train = read_digits().train
    keep = np.flatnonzero((train.targets > 0) | (np.arange(len(train)) % 50 == 0))
    data = train.select(keep)
    sources = find_sources(data, [3, *[0] * 9])
    ours = StableDiffusion(generator.checkpoint, ImageSettings(batch_size=4), sources=sources.images)
    jobs = image_jobs(ours.fingerprint, CLASSES, [3, *[0] * 9], PROMPTS, Sampling(5), sources, reserve=0, seed=0)
    made = ours.generate_checked(jobs[0])
    assert made.failures == [""] * 3
