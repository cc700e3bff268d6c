from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import Tensor

from generators.base import Job
from generators.safety import SafetyChecker
from generators.stable_diffusion import NOT_FINITE, UNSAFE, StableDiffusion
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_settings import ImageSettings

Copy = Callable[[Path], Path]
Edit = Callable[..., None]
Plan = Callable[..., list[Job]]


def test_images_that_are_not_finite_are_nan_and_never_black(
    tiny_sd: Path, copy_of: Copy, edit_weights: Edit, text_plan: Plan
) -> None:
    folder = copy_of(tiny_sd)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    edit_weights(file, lambda name, tensor: tensor.fill_(torch.inf) if name == "conv_in.bias" else tensor)
    generator = StableDiffusion(open_checkpoint(folder), ImageSettings(batch_size=2))
    made = generator.generate_checked(text_plan(generator, 1)[:3])
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
    tiny_sd: Path, copy_of: Copy, edit_weights: Edit, tiny_generator: StableDiffusion, text_plan: Plan
) -> None:
    folder = copy_of(tiny_sd)
    objecting(folder, edit_weights, -1.0)
    jobs = text_plan(tiny_generator, 1)[:3]
    strict = StableDiffusion(open_checkpoint(folder), ImageSettings(batch_size=4))
    made = strict.generate_checked(jobs)
    assert made.failures == [UNSAFE] * 3
    assert made.images.isnan().all()
    assert strict.facts["safety_checker"] == "on"
    assert strict.generate(jobs).isnan().all()

    off = StableDiffusion(open_checkpoint(folder), ImageSettings(batch_size=4, safety_checker=False))
    assert off.facts["safety_checker"] == "off"
    assert torch.equal(off.generate(jobs), tiny_generator.generate(jobs))


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


def test_a_checkpoint_without_a_safety_checker_says_so(tiny_sdxl: Path, text_plan: Plan) -> None:
    generator = StableDiffusion(open_checkpoint(tiny_sdxl), ImageSettings(batch_size=2))
    assert generator.facts["safety_checker"] == "none came with it"
    assert generator.generate_checked(text_plan(generator, 1)[:1]).failures == [""]
