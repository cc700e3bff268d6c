"""An adapter learns a look that the base has never been asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generators.latent_sampling import Sampling
from generators.lora import save_adapter
from generators.lora_training import AdaptationSettings, train_adapter
from generators.prompts import make_prompts
from generators.quality import kid
from generators.stable_diffusion import StableDiffusion
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_jobs import text_jobs
from generators.stable_diffusion_settings import ImageSettings
from rebalance.data.decoding import decode
from rebalance.data.digits import read_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PER_CLASS = 8


def inverted(split: str) -> tuple[Tensor, Tensor]:
    """Dark digits on light ground, (N, 3, 16, 16) uint8, and their labels."""
    table = read_digits().tables()[split]
    grey = torch.stack([torch.from_numpy(decode(image, 16).copy()) for image in table.images]).permute(0, 3, 1, 2)
    return 255 - grey, torch.from_numpy(table.targets)


def unit(images: Tensor) -> Tensor:
    return F.normalize(images.flatten(1).double() - 0.5, dim=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_adapted_images_are_far_nearer_to_held_out_ones_of_the_new_look(tiny_sd: Path, tmp_path: Path) -> None:
    images, labels = inverted("train")
    held_out, _ = inverted("test")
    tail = torch.cat([(labels == label).nonzero().flatten()[: 100 // (label + 1)] for label in range(10)])
    checkpoint, prompts = open_checkpoint(tiny_sd), make_prompts(NAMES)
    settings = AdaptationSettings(updates=300, batch_size=16, lr=1e-2, rank=16, flip=False)
    trained = train_adapter(checkpoint, lambda rows: images[tail[rows]], labels[tail], prompts, settings, size=16)
    save_adapter(tmp_path, trained.unet, trained.config, checkpoint, trained.tokens, {})

    generator = StableDiffusion(checkpoint, ImageSettings(batch_size=40), adapters=[tmp_path])
    distances = []
    for adapter in ("", *generator.adapters):
        plan = text_jobs(
            generator.fingerprint, NAMES, [PER_CLASS] * 10, prompts, Sampling(), reserve=0, seed=0, adapter=adapter
        )
        made = generator.generate([job for own in plan for job in own])
        distances.append(kid(unit(held_out / 255), unit(made)))
    base, adapted = distances
    assert base is not None
    assert adapted is not None
    assert adapted < 0.2 * base, distances
