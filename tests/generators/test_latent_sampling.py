from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from generators.base import Job
from generators.latent_sampling import SCHEDULERS, Sampling, make_scheduler
from generators.stable_diffusion import StableDiffusion
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_settings import ImageSettings
from rebalance.errors import InputError

Copy = Callable[[Path], Path]
Edit = Callable[..., None]
Plan = Callable[..., list[Job]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": "dpmsolver"}, r"did you mean 'dpmsolver\+\+'"),
        ({"steps": 0}, "1 to 999 steps"),
        ({"steps": 1000}, "1 to 999 steps"),
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


def test_ddim_reaches_the_extremes(tiny_sd: Path, copy_of: Copy, edit_json: Edit, text_plan: Plan) -> None:
    folder = copy_of(tiny_sd)
    edit_json(folder / "scheduler" / "scheduler_config.json", clip_sample=True)
    clipping = StableDiffusion(open_checkpoint(folder), ImageSettings(batch_size=10))
    faithful = StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(batch_size=10))
    jobs = text_plan(faithful, 1, Sampling(10, 2.0, "ddim"))
    assert torch.equal(clipping.generate(jobs), faithful.generate(jobs))
