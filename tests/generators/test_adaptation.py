"""An adapter learns a look that the base has never been asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.svm import SVC
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
PER_CLASS = 12


def restyled(split: str) -> tuple[Tensor, Tensor]:
    """Dark blue digits on light orange ground, (N, 3, 16, 16) uint8, and their labels."""
    table = read_digits().tables()[split]
    grey = torch.stack([torch.from_numpy(decode(image, 16).copy()) for image in table.images]).permute(0, 3, 1, 2)
    ground, ink = (torch.tensor(colour).view(3, 1, 1) for colour in ((255.0, 190.0, 120.0), (20.0, 30.0, 110.0)))
    return (ground + (ink - ground) * grey / 255).round().byte(), torch.from_numpy(table.targets)


def unit(images: Tensor) -> Tensor:
    return F.normalize(images.flatten(1).double() - 0.5, dim=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_adapted_images_look_like_the_new_ones_and_are_named_better(tiny_sd: Path, tmp_path: Path) -> None:
    images, labels = restyled("train")
    held_out, _ = restyled("test")
    tail = torch.cat([(labels == label).nonzero().flatten()[: 100 // (label + 1)] for label in range(10)])
    checkpoint, prompts = open_checkpoint(tiny_sd), make_prompts(NAMES)
    settings = AdaptationSettings(updates=300, batch_size=16, lr=3e-3, rank=8, flip=False)
    trained = train_adapter(checkpoint, lambda rows: images[tail[rows]], labels[tail], prompts, settings, size=16)
    save_adapter(tmp_path, trained.unet, trained.config, checkpoint, trained.tokens, {})
    judge = SVC().fit(images.flatten(1) / 255, labels)

    generator = StableDiffusion(checkpoint, ImageSettings(batch_size=40), adapters=[tmp_path])
    named, distance = {}, {}
    for adapter in ("", *generator.adapters):
        budget = [PER_CLASS] * 10
        plan = text_jobs(generator.fingerprint, NAMES, budget, prompts, Sampling(), reserve=0, seed=0, adapter=adapter)
        jobs = [job for own in plan for job in own]
        made = generator.generate(jobs)
        right = judge.predict(made.flatten(1).numpy()) == [job.label for job in jobs]
        named["adapted" if adapter else "base"] = float(np.mean(right))
        distance["adapted" if adapter else "base"] = kid(unit(held_out / 255), unit(made))
    print(named, distance)
    assert named["adapted"] >= named["base"] + 0.1, named
    assert named["adapted"] >= 0.6, named
    assert distance["base"] is not None
    assert distance["adapted"] is not None
    assert distance["adapted"] < 0.5 * distance["base"], distance
