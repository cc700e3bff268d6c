"""An adapter learns a look that the base has never been asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PER_CLASS = 8


def inverted(images: Tensor) -> Tensor:
    return 255 - images


def lying(images: Tensor) -> Tensor:
    return images.rot90(1, (2, 3))


def unit(images: Tensor) -> Tensor:
    return F.normalize(images.flatten(1).double() - 0.5, dim=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("look", "layers"), [(inverted, "all"), (lying, "attention")])
def test_adapted_images_are_nearer_to_the_new_look_and_named_better(
    tiny_sd: Path,
    digit_images: Callable[[str], tuple[Tensor, Tensor]],
    tmp_path: Path,
    look: Callable[[Tensor], Tensor],
    layers: str,
) -> None:
    plain, labels = digit_images("train")
    images, held_out = look(plain), look(digit_images("test")[0]) / 255
    classifier = SVC().fit((images / 255).flatten(1).numpy(), labels.numpy())
    tail = torch.cat([(labels == label).nonzero().flatten()[: 100 // (label + 1)] for label in range(10)])
    checkpoint, prompts = open_checkpoint(tiny_sd), make_prompts(NAMES)
    settings = AdaptationSettings(updates=300, batch_size=16, lr=5e-3, rank=16, layers=layers, flip=False)
    trained = train_adapter(checkpoint, lambda rows: images[tail[rows]], labels[tail], prompts, settings, size=16)
    save_adapter(tmp_path, trained.unet, trained.config, checkpoint, trained.tokens, {})

    generator = StableDiffusion(checkpoint, ImageSettings(batch_size=40), adapters=[tmp_path])
    distances, named = [], []
    for adapter in ("", *generator.adapters):
        plan = text_jobs(
            generator.fingerprint, NAMES, [PER_CLASS] * 10, prompts, Sampling(), reserve=0, seed=0, adapter=adapter
        )
        jobs = [job for own in plan for job in own]
        made = generator.generate(jobs)
        distance = kid(unit(held_out), unit(made))
        assert distance is not None
        distances.append(distance)
        right = classifier.predict(made.flatten(1).numpy()) == [job.label for job in jobs]
        named.append(float(right.mean()))
    assert distances[1] < 0.2 * distances[0], distances
    assert named[1] >= named[0] + 0.1, named
