from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file
from torch import Tensor

from generators.lora_inputs import TrainingLatents, token_names
from generators.lora_training import AdaptationSettings, TrainedAdapter, target_and_weight
from generators.prompt_embeddings import PromptEmbedder
from generators.prompts import make_prompts
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_loading import load_model
from rebalance.errors import InputError, RunError

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROMPTS = make_prompts(NAMES)
TOKEN_PROMPTS = make_prompts(NAMES, tokens=token_names(NAMES))


def trainable(trained: TrainedAdapter) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in trained.unet.state_dict().items() if "lora_" in name}


class KilledError(Exception):
    pass


def kill_after(updates: int) -> Callable[[int, float], None]:
    left = [updates]

    def report(n: int, loss: float) -> None:
        left[0] -= n
        if left[0] <= 0:
            raise KilledError

    return report


@pytest.mark.parametrize("tokens", [False, True])
def test_a_training_resumes_bit_for_bit(
    tiny_sd: Path, tmp_path: Path, tokens: bool, adapt: Callable[..., TrainedAdapter]
) -> None:
    options: dict[str, Any] = {"prompts": TOKEN_PROMPTS, "token_starts": NAMES} if tokens else {}
    undisturbed = adapt(tiny_sd, **options)
    with pytest.raises(KilledError):
        adapt(tiny_sd, checkpoints=tmp_path, progress=kill_after(3), **options)
    assert json.loads((tmp_path / "last.json").read_text()) == {"checkpoint": "update_0000002"}
    sizes = [file.stat().st_size for file in tmp_path.rglob("adapter.safetensors")]
    assert max(sizes) < 200_000  # the adapter, not the U-Net
    resumed = adapt(tiny_sd, checkpoints=tmp_path, **options)
    for name, tensor in trainable(undisturbed).items():
        assert torch.equal(tensor, trainable(resumed)[name]), name
    if tokens:
        assert undisturbed.tokens is not None
        assert resumed.tokens is not None
        assert torch.equal(undisturbed.tokens.vectors["text_encoder"], resumed.tokens.vectors["text_encoder"])


def test_the_base_is_frozen_and_the_adapter_in_float32(tiny_sd: Path, quick_adapter: TrainedAdapter) -> None:
    base = load_model(open_checkpoint(tiny_sd), "unet", torch.float32).state_dict()
    ours = {name.replace(".base_layer", ""): tensor for name, tensor in quick_adapter.unet.state_dict().items()}
    assert all(torch.equal(tensor, ours[name]) for name, tensor in base.items())
    assert {tensor.dtype for tensor in trainable(quick_adapter).values()} == {torch.float32}
    assert quick_adapter.config.r == quick_adapter.config.lora_alpha == 4


def test_training_lowers_the_loss_on_other_images_of_the_style(
    tiny_sd: Path, digit_images: Callable[[str], tuple[Tensor, Tensor]], adapt: Callable[..., TrainedAdapter]
) -> None:
    checkpoint = open_checkpoint(tiny_sd)
    images, labels = digit_images("test")
    adapted = adapt(tiny_sd, AdaptationSettings(updates=60, batch_size=16, lr=5e-3, flip=False)).unet
    embedder = PromptEmbedder(checkpoint, torch.float32)
    embedder.embed(PROMPTS.distinct())
    vae = load_model(checkpoint, "vae", torch.float32)
    latents = TrainingLatents(vae, lambda rows: 255 - images[rows], 16)
    stream = torch.Generator().manual_seed(0)
    spread, noise = torch.randn((2, 64, *latents.shape), generator=stream)
    clean = latents(torch.arange(64), torch.zeros(64, dtype=torch.bool), spread)
    times = torch.randint(1000, (64,), generator=stream)
    schedule: Any = DDPMScheduler.from_config(checkpoint.config("scheduler"))
    noisy, target = schedule.add_noise(clean, noise, times), schedule.get_velocity(clean, noise, times)
    states = torch.stack([embedder.prompt(PROMPTS(label, 0)).states for label in labels[:64].tolist()])

    def loss() -> float:
        with torch.no_grad():
            predicted = adapted(noisy, times, encoder_hidden_states=states).sample
        return float((predicted - target).square().mean())

    after = loss()
    adapted.disable_lora()
    assert after < 0.8 * loss()


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"label_exponent": 0.0},
        {"prompt_drop": 0.9},
        {"min_snr": 1.0},
        {"flip": False},
        {"lr": 1e-3},
        {"rank": 2},
        {"batch_size": 4},
    ],
)
def test_every_setting_counts(
    tiny_sd: Path,
    quick_adapter: TrainedAdapter,
    changed: dict[str, Any],
    adapt: Callable[..., TrainedAdapter],
    quick: AdaptationSettings,
) -> None:
    other = trainable(adapt(tiny_sd, replace(quick, **changed)))
    assert any(
        tensor.shape != other[name].shape or not torch.equal(tensor, other[name])
        for name, tensor in trainable(quick_adapter).items()
    )


def test_gradient_checkpointing_changes_nothing(
    tiny_sd: Path, quick_adapter: TrainedAdapter, adapt: Callable[..., TrainedAdapter], quick: AdaptationSettings
) -> None:
    other = trainable(adapt(tiny_sd, replace(quick, gradient_checkpointing=True)))
    for name, tensor in trainable(quick_adapter).items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-6)


def test_bf16_trains_near_float32(
    tiny_sd: Path, quick_adapter: TrainedAdapter, adapt: Callable[..., TrainedAdapter], quick: AdaptationSettings
) -> None:
    half = adapt(tiny_sd, replace(quick, amp="bf16"))
    assert half.unet.conv_in.weight.dtype == torch.bfloat16
    ours = trainable(half)
    assert {tensor.dtype for tensor in ours.values()} == {torch.float32}
    together = [
        torch.cat([t.flatten() for n, t in one.items() if "lora_B" in n]) for one in (trainable(quick_adapter), ours)
    ]
    assert torch.nn.functional.cosine_similarity(*together, dim=0) > 0.8


def test_images_of_any_size_are_resized_and_read_once(
    tiny_sd: Path, digit_tail: tuple[Tensor, Tensor], adapt: Callable[..., TrainedAdapter], quick: AdaptationSettings
) -> None:
    seen: list[int] = []

    def read(rows: Tensor) -> Tensor:
        seen.extend(rows.tolist())
        return digit_tail[0][rows].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    adapt(tiny_sd, replace(quick, updates=12, flip=False), read=read)
    assert len(seen) == len(set(seen))


def test_layers_that_are_not_known_are_refused(
    tiny_sd: Path, adapt: Callable[..., TrainedAdapter], quick: AdaptationSettings
) -> None:
    with pytest.raises(InputError, match="layers attention or all; got 'al'; did you mean 'all'"):
        adapt(tiny_sd, replace(quick, layers="al"))


def test_a_loss_that_is_not_finite_ends_the_training(
    tiny_sd: Path, adapt: Callable[..., TrainedAdapter], quick: AdaptationSettings
) -> None:
    with pytest.raises(RunError, match="the loss of the adapter after 2 updates is nan"):
        adapt(tiny_sd, replace(quick, lr=1e30))


def test_the_target_follows_the_prediction_type() -> None:
    stream = torch.Generator().manual_seed(0)
    clean, noise = torch.randn((2, 4, 2, 3, 3), generator=stream)
    times = torch.tensor([0, 300, 700, 999])
    config = json.loads('{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}')
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    for kind in ("epsilon", "v_prediction", "sample"):
        schedule = DDPMScheduler.from_config({**config, "prediction_type": kind})
        target, plain = target_and_weight(schedule, clean, noise, times, None)
        assert plain.tolist() == [1.0] * 4
        _, weight = target_and_weight(schedule, clean, noise, times, 5.0)
        for i, t in enumerate(times.tolist()):
            signal = np.prod(1 - betas[: t + 1])
            ratio = signal / (1 - signal)
            capped = min(ratio, 5.0)
            expected = {
                "epsilon": (noise[i], capped / ratio),
                "v_prediction": (signal**0.5 * noise[i] - (1 - signal) ** 0.5 * clean[i], capped / (ratio + 1)),
                "sample": (clean[i], capped),
            }[kind]
            torch.testing.assert_close(target[i], expected[0].float(), rtol=1e-4, atol=1e-5)
            assert float(weight[i]) == pytest.approx(expected[1], rel=1e-3)
    odd = DDPMScheduler.from_config({**config, "prediction_type": "epsilon"})
    odd.register_to_config(prediction_type="score")
    with pytest.raises(InputError, match="got score"):
        target_and_weight(odd, clean, noise, times, None)


TWO_RANKS = """
import os, sys, torch, torch.distributed as dist
from pathlib import Path
from safetensors.torch import save_file
from torch import nn
from generators.lora_inputs import token_names
from generators.lora_training import AdaptationSettings, train_adapter
from generators.prompts import make_prompts
from generators.stable_diffusion_checkpoint import open_checkpoint
rank, world, base, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
wrap = lambda module: module
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{out}/store", rank=rank, world_size=world)
    wrap = nn.parallel.DistributedDataParallel
names = ("zero", "one")
images = torch.randint(256, (8, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
trained = train_adapter(
    open_checkpoint(base), images.__getitem__, torch.arange(8) % 2, make_prompts(names, tokens=token_names(names)),
    AdaptationSettings(updates=6, batch_size=5, rank=2, prompt_drop=0.6, checkpoint_updates=3),
    size=16, token_starts=names, wrap=wrap, checkpoints=out / f"checkpoints-{world}",
)
found = {name: tensor for name, tensor in trained.unet.state_dict().items() if "lora_" in name}
save_file(found | trained.tokens.vectors, out / f"{world}-{rank}.safetensors")
if world > 1:
    dist.barrier()
os._exit(0)  # gloo's threads now and then abort an interpreter that winds down
"""


@pytest.mark.slow
def test_two_ranks_train_the_adapter_of_one(tiny_sd: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    places = ((0, 1), (0, 2), (1, 2))
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_RANKS, str(rank), str(world), str(tiny_sd), str(tmp_path)], env=environment
        )
        for rank, world in places
    ]
    try:
        assert [rank.wait(timeout=200) for rank in ranks] == [0, 0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    one, first, second = (load_file(tmp_path / f"{world}-{rank}.safetensors") for rank, world in places)
    for name, tensor in one.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(tensor, first[name], rtol=1e-3, atol=1e-5)


def test_a_batch_needs_an_image_for_each_rank(
    tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, adapt: Callable[..., TrainedAdapter]
) -> None:
    monkeypatch.setattr("generators.lora_training.world_size", lambda: 4)
    with pytest.raises(InputError, match="each of 4 ranks; got 3"):
        adapt(tiny_sd)
