from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from generators.base import Job
from generators.latent_sampling import Sampling
from generators.lora import TRAINED, WEIGHTS, load_adapter, save_adapter
from generators.lora_inputs import TrainingLatents, TrainingTexts, token_names
from generators.lora_training import AdaptationSettings, TrainedAdapter, target_and_weight, train_adapter
from generators.prompt_embeddings import LearntTokens, PromptEmbedder, add_tokens
from generators.prompts import Prompts, make_prompts
from generators.stable_diffusion import StableDiffusion
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_jobs import text_jobs
from generators.stable_diffusion_loading import load_model
from generators.stable_diffusion_settings import ImageSettings
from rebalance.data.decoding import decode
from rebalance.data.digits import read_digits
from rebalance.errors import InputError, RunError

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
QUICK = AdaptationSettings(updates=4, batch_size=3, rank=4, lr=1e-2, checkpoint_updates=2)
PROMPTS = make_prompts(NAMES)
TOKEN_PROMPTS = make_prompts(NAMES, tokens=token_names(NAMES))
SETTINGS = ImageSettings(batch_size=2)


def digits(split: str = "train") -> tuple[Tensor, Tensor]:
    """Digits (N, 3, 16, 16) uint8 and labels."""
    table = read_digits().tables()[split]
    pixels = torch.stack([torch.from_numpy(decode(image, 16).copy()) for image in table.images])
    return pixels.permute(0, 3, 1, 2), torch.from_numpy(table.targets)


ALL_IMAGES, ALL_LABELS = digits()
TAIL = torch.cat([(label == ALL_LABELS).nonzero().flatten()[: 100 // (label + 1)] for label in range(10)])
IMAGES, LABELS = ALL_IMAGES[TAIL], ALL_LABELS[TAIL]
"""100 zeros, 50 ones, …, 10 nines."""


def inverted(rows: Tensor) -> Tensor:
    return 255 - IMAGES[rows]


def train(folder: Path, settings: AdaptationSettings = QUICK, **options: Any) -> TrainedAdapter:
    prompts: Prompts = options.pop("prompts", PROMPTS)
    read = options.pop("read", inverted)
    return train_adapter(open_checkpoint(folder), read, LABELS, prompts, settings, size=16, **options)


def save(trained: TrainedAdapter, folder: Path, base: Path) -> Path:
    save_adapter(folder, trained.unet, trained.config, open_checkpoint(base), trained.tokens, {"updates": 4})
    return folder


def jobs_of(generator: StableDiffusion, adapter: str = "", prompts: Prompts = PROMPTS) -> list[Job]:
    classes = [str(i) for i in range(10)]
    budget = [1] * 3 + [0] * 7
    plan = text_jobs(generator.fingerprint, classes, budget, prompts, Sampling(3), reserve=0, seed=0, adapter=adapter)
    return [job for own in plan for job in own]


def trainable(trained: TrainedAdapter) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in trained.unet.state_dict().items() if "lora_" in name}


@pytest.fixture(scope="module")
def trained(tiny_sd: Path) -> TrainedAdapter:
    return train(tiny_sd)


@pytest.fixture(scope="module")
def adapter(trained: TrainedAdapter, tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(trained, tmp_path_factory.mktemp("adapter"), tiny_sd)


# Saved and loaded


def test_images_after_saving_and_loading_are_the_same_and_not_the_bases(
    tiny_sd: Path, trained: TrainedAdapter, adapter: Path
) -> None:
    generator = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS, adapters=[adapter])
    (name,) = generator.adapters
    reloaded = generator.generate(jobs_of(generator, name))
    before = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS)
    base = before.generate(jobs_of(before))
    before.unet = trained.unet
    torch.testing.assert_close(reloaded, before.generate(jobs_of(before)), rtol=0, atol=1e-6)
    assert (reloaded - base).abs().amax(dim=(1, 2, 3)).min() > 0.01


def test_jobs_without_the_adapter_give_the_bases_bytes(tiny_sd: Path, adapter: Path) -> None:
    base = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS)
    generator = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS, adapters=[adapter])
    assert generator.fingerprint == base.fingerprint
    adapted = jobs_of(generator, *generator.adapters)
    mixed = [job for pair in zip(adapted, jobs_of(generator), strict=True) for job in pair]
    images = generator.generate(mixed)
    assert torch.equal(images[1::2], base.generate(jobs_of(base)))
    assert torch.equal(images[::2], generator.generate(adapted))
    assert {job.id for job in adapted}.isdisjoint(job.id for job in jobs_of(generator))


def test_two_adapters_take_turns(tiny_sd: Path, adapter: Path, tmp_path: Path) -> None:
    other = save(train(tiny_sd, replace(QUICK, seed=1, rank=2)), tmp_path, tiny_sd)
    generator = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS, adapters=[adapter, other])
    first, second = generator.adapters
    images = generator.generate([*jobs_of(generator, first), *jobs_of(generator, second), *jobs_of(generator)])
    for place, folder in ((slice(0, 3), adapter), (slice(3, 6), other)):
        alone = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS, adapters=[folder])
        assert torch.equal(images[place], alone.generate(jobs_of(alone, *alone.adapters)))
    assert not torch.equal(images[:3], images[3:6])


def test_an_adapter_that_was_not_loaded_is_refused(tiny_sd: Path) -> None:
    generator = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS)
    with pytest.raises(InputError, match="an adapter that was loaded; got abc"):
        generator.generate(jobs_of(generator, "abc"))


def test_alpha_survives(tiny_sd: Path, trained: TrainedAdapter, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_sd)
    unet = load_model(checkpoint, "unet", torch.float32)
    config = LoraConfig(r=2, lora_alpha=16, init_lora_weights=False, target_modules=["to_q", "to_v"])
    unet.add_adapter(config, TRAINED)
    save_adapter(tmp_path, unet, config, checkpoint, None, {})  # checks what the reloaded one predicts
    fresh = load_model(checkpoint, "unet", torch.float32)
    name = load_adapter(tmp_path, fresh, checkpoint).fingerprint
    scales = [module.scaling[name] for module in fresh.modules() if hasattr(module, "scaling")]
    assert scales
    assert set(scales) == {8.0}
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        assert json.loads(file.metadata()["lora_adapter_metadata"])["unet.lora_alpha"] == 16


def test_diffusers_own_loader_reads_the_adapter(tiny_sd: Path, trained: TrainedAdapter, adapter: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd, dtype=torch.float32, local_files_only=True)
    pipe.load_lora_weights(adapter, weight_name=WEIGHTS, local_files_only=True)
    ours = {name.replace(f".{TRAINED}.", ".default_0."): tensor for name, tensor in trainable(trained).items()}
    theirs = pipe.unet.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_half_precision_generator_takes_the_adapter_in_its_precision(tiny_sd: Path, adapter: Path) -> None:
    generator = StableDiffusion(
        open_checkpoint(tiny_sd), ImageSettings(batch_size=2, dtype="bfloat16"), adapters=[adapter]
    )
    assert {tensor.dtype for tensor in generator.unet.parameters()} == {torch.bfloat16}
    assert generator.generate(jobs_of(generator, *generator.adapters)).isfinite().all()


# Adapters that would load nothing


def rewrite(adapter: Path, target: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    target.mkdir(exist_ok=True)
    save_file(change(load_file(adapter / WEIGHTS)), target / WEIGHTS, {"format": "pt"})
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k.removeprefix("unet."): v for k, v in s.items()}, "a LoRA of the U-Net alone; got down_blocks"),
        (lambda s: {k.replace("attn1", "attn7"): v for k, v in s.items()}, "LoRA"),
        (lambda s: {k: torch.zeros_like(v) for k, v in s.items()}, "a LoRA with an effect; got zeros"),
        (lambda s: {k: torch.cat([v, v], dim=1).contiguous() for k, v in s.items()}, "a LoRA that fits the U-Net"),
        (
            lambda s: s | {"text_encoder.encoder.layers.0.self_attn.k_proj.lora_A.weight": torch.ones(4, 32)},
            "U-Net alone; got text_encoder",
        ),
        (
            lambda s: s | {k.replace("down_blocks.1", "down_blocks.9"): v.clone() for k, v in s.items()},
            "whose .* tensors all have a layer",
        ),
    ],
    ids=["no prefix", "unknown layers", "zeros", "shapes", "text encoder", "some unknown layers"],
)
def test_a_lora_that_would_do_nothing_is_refused(
    tiny_sd: Path, adapter: Path, tmp_path: Path, change: Any, message: str
) -> None:
    folder = rewrite(adapter, tmp_path / "changed", change)
    checkpoint = open_checkpoint(tiny_sd)
    with pytest.raises(InputError, match=message):
        load_adapter(folder, load_model(checkpoint, "unet", torch.float32), checkpoint)


def test_files_that_are_no_adapter_are_refused(tiny_sd: Path, adapter: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_sd)
    unet = load_model(checkpoint, "unet", torch.float32)
    with pytest.raises(InputError, match="an adapter folder with"):
        load_adapter(tmp_path, unet, checkpoint)
    pickled = tmp_path / "pytorch_lora_weights.bin"
    torch.save({}, pickled)
    with pytest.raises(InputError, match="or a safetensors file"):
        load_adapter(pickled, unet, checkpoint)
    (tmp_path / WEIGHTS).write_bytes((adapter / WEIGHTS).read_bytes()[:-5])
    with pytest.raises(InputError, match="a whole LoRA file"):
        load_adapter(tmp_path, unet, checkpoint)


def test_an_adapter_without_effect_is_not_saved(tiny_sd: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the adapter changes nothing"):
        save(train(tiny_sd, replace(QUICK, updates=0)), tmp_path, tiny_sd)
    assert not (tmp_path / WEIGHTS).exists()


# Training


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
def test_a_training_resumes_bit_for_bit(tiny_sd: Path, tmp_path: Path, tokens: bool) -> None:
    options: dict[str, Any] = {"prompts": TOKEN_PROMPTS, "token_starts": NAMES} if tokens else {}
    undisturbed = train(tiny_sd, **options)
    with pytest.raises(KilledError):
        train(tiny_sd, checkpoints=tmp_path, progress=kill_after(3), **options)
    assert json.loads((tmp_path / "last.json").read_text()) == {"checkpoint": "update_0000002"}
    sizes = [file.stat().st_size for file in tmp_path.rglob("adapter.safetensors")]
    assert max(sizes) < 200_000  # the adapter, not the U-Net
    resumed = train(tiny_sd, checkpoints=tmp_path, **options)
    for name, tensor in trainable(undisturbed).items():
        assert torch.equal(tensor, trainable(resumed)[name]), name
    if tokens:
        assert undisturbed.tokens is not None
        assert resumed.tokens is not None
        assert torch.equal(undisturbed.tokens.vectors["text_encoder"], resumed.tokens.vectors["text_encoder"])


def test_the_base_is_frozen_and_the_adapter_in_float32(tiny_sd: Path, trained: TrainedAdapter) -> None:
    base = load_model(open_checkpoint(tiny_sd), "unet", torch.float32).state_dict()
    ours = {name.replace(".base_layer", ""): tensor for name, tensor in trained.unet.state_dict().items()}
    assert all(torch.equal(tensor, ours[name]) for name, tensor in base.items())
    assert {tensor.dtype for tensor in trainable(trained).values()} == {torch.float32}
    assert trained.config.r == trained.config.lora_alpha == 4


def test_training_lowers_the_loss_on_other_images_of_the_style(tiny_sd: Path) -> None:
    checkpoint = open_checkpoint(tiny_sd)
    images, labels = digits("test")
    adapted = train(tiny_sd, AdaptationSettings(updates=60, batch_size=16, lr=5e-3, flip=False)).unet
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
def test_every_setting_counts(tiny_sd: Path, trained: TrainedAdapter, changed: dict[str, Any]) -> None:
    other = trainable(train(tiny_sd, replace(QUICK, **changed)))
    assert any(
        tensor.shape != other[name].shape or not torch.equal(tensor, other[name])
        for name, tensor in trainable(trained).items()
    )


def test_gradient_checkpointing_changes_nothing(tiny_sd: Path, trained: TrainedAdapter) -> None:
    other = trainable(train(tiny_sd, replace(QUICK, gradient_checkpointing=True)))
    for name, tensor in trainable(trained).items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-6)


def test_bf16_trains_near_float32(tiny_sd: Path, trained: TrainedAdapter) -> None:
    half = train(tiny_sd, replace(QUICK, amp="bf16"))
    assert half.unet.conv_in.weight.dtype == torch.bfloat16
    ours = trainable(half)
    assert {tensor.dtype for tensor in ours.values()} == {torch.float32}
    together = [torch.cat([t.flatten() for n, t in one.items() if "lora_B" in n]) for one in (trainable(trained), ours)]
    assert torch.nn.functional.cosine_similarity(*together, dim=0) > 0.8


def test_images_of_any_size_are_resized_and_read_once(tiny_sd: Path) -> None:
    seen: list[int] = []

    def read(rows: Tensor) -> Tensor:
        seen.extend(rows.tolist())
        return IMAGES[rows].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    train(tiny_sd, replace(QUICK, updates=12, flip=False), read=read)
    assert len(seen) == len(set(seen))


def test_a_loss_that_is_not_finite_ends_the_training(tiny_sd: Path) -> None:
    with pytest.raises(RunError, match="the adapter's loss after 4 updates is nan"):
        train(tiny_sd, replace(QUICK, lr=1e30))


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


def test_a_batch_needs_an_image_for_each_rank(tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generators.lora_training.world_size", lambda: 4)
    with pytest.raises(InputError, match="each of 4 ranks; got 3"):
        train(tiny_sd)


# Tokens


@pytest.fixture(scope="module")
def with_tokens(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedAdapter, Path]:
    trained = train(
        tiny_sd,
        replace(QUICK, updates=10, batch_size=8),
        prompts=TOKEN_PROMPTS,
        token_starts=[*NAMES[:9], "handwritten nine"],
    )
    return trained, save(trained, tmp_path_factory.mktemp("tokens"), tiny_sd)


def test_tokens_begin_at_the_mean_of_their_words_and_learn(
    tiny_sd: Path, with_tokens: tuple[TrainedAdapter, Path]
) -> None:
    checkpoint = open_checkpoint(tiny_sd)
    embedder = PromptEmbedder(checkpoint, torch.float32)
    rows = embedder.load_encoders()[0].get_input_embeddings().weight
    ids = embedder.tokenizers[0]("handwritten nine", add_special_tokens=False).input_ids
    start = train(tiny_sd, replace(QUICK, updates=0), prompts=TOKEN_PROMPTS, token_starts=["handwritten nine"] * 10)
    assert start.tokens is not None
    torch.testing.assert_close(start.tokens.vectors["text_encoder"][4], rows[ids].mean(dim=0))
    learnt = with_tokens[0].tokens
    assert learnt is not None
    moved = (learnt.vectors["text_encoder"][9] - start.tokens.vectors["text_encoder"][9]).norm()
    assert moved > 1e-3


def test_tokens_come_back_with_the_adapter(tiny_sd: Path, with_tokens: tuple[TrainedAdapter, Path]) -> None:
    folder = with_tokens[1]
    generator = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS, adapters=[folder])
    (name,) = generator.adapters
    told, plain = jobs_of(generator, name, TOKEN_PROMPTS), jobs_of(generator, name)
    assert told[0].settings["prompt"].count("<class-0>") == 1
    # Each token is one id, so a prompt is one token longer, not as many as the token has letters.
    texts = [jobs[0].settings["prompt"].replace("<class-0> ", "") for jobs in (told, plain)]
    assert generator.n_tokens(told[0].settings["prompt"], name) == generator.n_tokens(texts[0]) + 1
    images = generator.generate(told)
    assert not torch.equal(images, generator.generate(plain))
    again = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS, adapters=[folder])
    assert torch.equal(images, again.generate(jobs_of(again, name, TOKEN_PROMPTS)))
    with pytest.raises(InputError, match="use the adapter that learnt it"):
        generator.generate(jobs_of(generator, "", TOKEN_PROMPTS))


def test_training_embeds_tokens_as_generation_does(tiny_sd: Path, tiny_sdxl: Path) -> None:
    for folder in (tiny_sd, tiny_sdxl):
        checkpoint = open_checkpoint(folder)
        texts = TrainingTexts(checkpoint, TOKEN_PROMPTS, NAMES, torch.device("cpu"))
        stream = torch.Generator().manual_seed(0)
        for vectors in texts.tokens.values():
            vectors.data += torch.randn(vectors.shape, generator=stream)
        embedder = PromptEmbedder(checkpoint, torch.float32, texts.learnt())
        wanted = [TOKEN_PROMPTS(3, 0), None, TOKEN_PROMPTS(8, 1)]
        embedder.embed(["", *(text for text in wanted if text)])
        made = texts(wanted)
        for i, text in enumerate(wanted):
            expected = embedder.negative("") if text is None else embedder.prompt(text)
            torch.testing.assert_close(made.states[i], expected.states, rtol=1e-4, atol=1e-5)
            if expected.pooled is not None:
                assert made.pooled is not None
                torch.testing.assert_close(made.pooled[i], expected.pooled, rtol=1e-4, atol=1e-5)


def test_added_tokens_do_not_move_the_end_that_sdxl_pools(tiny_sdxl: Path) -> None:
    # The second encoder's configuration has 2 as its end token: CLIP then takes the highest id, an added token's.
    checkpoint = open_checkpoint(tiny_sdxl)
    widths = {"text_encoder": 32, "text_encoder_2": 24}
    tokens = LearntTokens(("<class-0>",), {part: torch.zeros(1, width) for part, width in widths.items()})
    embedder = PromptEmbedder(checkpoint, torch.float32, tokens)
    embedder.embed(["a <class-0> zero"])
    encoder = embedder.load_encoders()[1]
    ids = embedder.ids("a <class-0> zero")[1]
    end = int((ids[0] == embedder.tokenizers[1].eos_token_id).nonzero()[0])
    with torch.no_grad():
        states = encoder.text_model(ids).last_hidden_state
        expected = encoder.text_projection(states[0, end])
    torch.testing.assert_close(embedder.prompt("a <class-0> zero").pooled, expected)


@pytest.mark.parametrize("name", ["zero", "<Class-0>"])
def test_token_names_that_are_not_new_words_are_refused(tiny_sd: Path, name: str) -> None:
    embedder = PromptEmbedder(open_checkpoint(tiny_sd), torch.float32)
    with pytest.raises(InputError, match="new tokens in lower case"):
        add_tokens(embedder.tokenizers, [name, name])


# SDXL


@pytest.mark.parametrize("tokens", [False, True])
def test_sdxl_is_adapted_too(tiny_sdxl: Path, tmp_path: Path, tokens: bool) -> None:
    prompts = TOKEN_PROMPTS if tokens else PROMPTS
    starts: Sequence[str] | None = NAMES if tokens else None
    trained = train(tiny_sdxl, prompts=prompts, token_starts=starts)
    folder = save(trained, tmp_path, tiny_sdxl)
    generator = StableDiffusion(open_checkpoint(tiny_sdxl), SETTINGS, adapters=[folder])
    (name,) = generator.adapters
    images = generator.generate(jobs_of(generator, name, prompts))
    assert images.isfinite().all()
    assert not torch.equal(images, generator.generate(jobs_of(generator)))
    if tokens:
        assert trained.tokens is not None
        assert {part: vector.shape[1] for part, vector in trained.tokens.vectors.items()} == {
            "text_encoder": 32,
            "text_encoder_2": 24,
        }


SAVE = """
import sys
import torch
from pathlib import Path
from peft import LoraConfig
from generators.lora import TRAINED, WEIGHTS, save_adapter
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_loading import load_model
from rebalance.files import sha256

checkpoint, folder = open_checkpoint(sys.argv[1]), Path(sys.argv[2])
unet = load_model(checkpoint, "unet", torch.float32)
torch.manual_seed(0)
config = LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
unet.add_adapter(config, TRAINED)
save_adapter(folder, unet, config, checkpoint, None, {})
print(sha256(folder / WEIGHTS))
"""


def test_a_file_is_the_same_in_every_process(tiny_sd: Path, tmp_path: Path) -> None:
    """Strings hash differently in each, and with them the order of sets."""
    made = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", SAVE, str(tiny_sd), str(tmp_path / seed)]
        made.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(made) == 1
