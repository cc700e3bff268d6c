from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPTextModel

from generators.base import Job
from generators.latent_sampling import Sampling
from generators.prompts import make_prompts
from generators.stable_diffusion import StableDiffusion
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_settings import ImageSettings
from rebalance.errors import InputError

Copy = Callable[[Path], Path]
Plan = Callable[..., list[Job]]
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FEW = Sampling(steps=3)


def test_text_encoders_are_freed_and_loaded_only_for_new_prompts(
    tiny_generator: StableDiffusion, monkeypatch: pytest.MonkeyPatch, text_plan: Plan
) -> None:
    loads: list[Any] = []
    real = CLIPTextModel.from_pretrained
    monkeypatch.setattr(CLIPTextModel, "from_pretrained", lambda *a, **k: loads.append(a) or real(*a, **k))
    prompts = make_prompts(NAMES, templates=["{name} {name}"])
    tiny_generator.embed(prompts.distinct())
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is CLIPTextModel]
    assert len(loads) == 1
    tiny_generator.generate(text_plan(tiny_generator, 1, FEW, prompts))
    assert len(loads) == 1


def test_too_long_a_prompt_is_refused(tiny_generator: StableDiffusion, text_plan: Plan) -> None:
    prompts = make_prompts(NAMES, templates=["a " * 80 + "{name}"])
    assert tiny_generator.n_tokens(prompts(0, 0)) == 83
    with pytest.raises(InputError, match="at most 77 tokens; got 83"):
        tiny_generator.generate(text_plan(tiny_generator, 1, FEW, prompts)[:1])


def test_prompts_that_the_tokenizer_cannot_tell_apart_are_refused(
    tiny_sd: Path, copy_of: Copy, text_plan: Plan
) -> None:
    folder = copy_of(tiny_sd)
    file = folder / "tokenizer" / "tokenizer.json"
    told = json.loads(file.read_text())
    told["model"]["merges"] = []
    told["model"]["vocab"] = {piece: i for piece, i in told["model"]["vocab"].items() if len(piece) > 5 or i < 2}
    told["model"]["vocab"] |= {f"<pad-{i}>": 3 + i for i in range(300)}
    file.write_text(json.dumps(told))
    generator = StableDiffusion(open_checkpoint(folder), ImageSettings(batch_size=2))
    with pytest.raises(InputError, match="a tokenizer that tells prompts apart; got the same ids"):
        generator.generate(text_plan(generator, 1)[:2])


def test_a_token_that_nobody_learnt_is_refused(tiny_generator: StableDiffusion, text_plan: Plan) -> None:
    job = text_plan(tiny_generator, 1)[0]
    job = replace(job, settings={**job.settings, "prompt": "a photo of a <class-3> zero"})
    with pytest.raises(InputError, match="learnt tokens only; got <class-3>"):
        tiny_generator.generate([job])
