from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from generators.base import Job
from generators.lora import TRAINED, WEIGHTS, load_adapter, save_adapter
from generators.lora_training import AdaptationSettings, TrainedAdapter
from generators.stable_diffusion import StableDiffusion
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_loading import load_model
from generators.stable_diffusion_settings import ImageSettings
from rebalance.errors import InputError, RunError

SETTINGS = ImageSettings(batch_size=2)


def trainable(trained: TrainedAdapter) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in trained.unet.state_dict().items() if "lora_" in name}


# Saved and loaded


def test_images_after_saving_and_loading_are_the_same_and_not_the_bases(
    tiny_sd: Path, quick_adapter: TrainedAdapter, adapter_folder: Path, adapter_jobs: Callable[..., list[Job]]
) -> None:
    generator = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS, adapters=[adapter_folder])
    (name,) = generator.adapters
    reloaded = generator.generate(adapter_jobs(generator, name))
    before = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS)
    base = before.generate(adapter_jobs(before))
    before.unet = quick_adapter.unet
    torch.testing.assert_close(reloaded, before.generate(adapter_jobs(before)), rtol=0, atol=1e-6)
    assert (reloaded - base).abs().amax(dim=(1, 2, 3)).min() > 0.01


def test_jobs_without_the_adapter_give_the_bases_bytes(
    tiny_sd: Path, adapter_folder: Path, adapter_jobs: Callable[..., list[Job]]
) -> None:
    base = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS)
    generator = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS, adapters=[adapter_folder])
    assert generator.fingerprint == base.fingerprint
    adapted = adapter_jobs(generator, *generator.adapters)
    mixed = [job for pair in zip(adapted, adapter_jobs(generator), strict=True) for job in pair]
    images = generator.generate(mixed)
    assert torch.equal(images[1::2], base.generate(adapter_jobs(base)))
    assert torch.equal(images[::2], generator.generate(adapted))
    assert {job.id for job in adapted}.isdisjoint(job.id for job in adapter_jobs(generator))


def test_two_adapters_take_turns(
    tiny_sd: Path,
    adapter_folder: Path,
    tmp_path: Path,
    adapt: Callable[..., TrainedAdapter],
    save_adapted: Callable[..., Path],
    adapter_jobs: Callable[..., list[Job]],
    quick: AdaptationSettings,
) -> None:
    other = save_adapted(adapt(tiny_sd, replace(quick, seed=1, rank=2)), tmp_path, tiny_sd)
    generator = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS, adapters=[adapter_folder, other])
    first, second = generator.adapters
    images = generator.generate(
        [*adapter_jobs(generator, first), *adapter_jobs(generator, second), *adapter_jobs(generator)]
    )
    for place, folder in ((slice(0, 3), adapter_folder), (slice(3, 6), other)):
        alone = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS, adapters=[folder])
        assert torch.equal(images[place], alone.generate(adapter_jobs(alone, *alone.adapters)))
    assert not torch.equal(images[:3], images[3:6])


def test_an_adapter_that_was_not_loaded_is_refused(tiny_sd: Path, adapter_jobs: Callable[..., list[Job]]) -> None:
    generator = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS)
    with pytest.raises(InputError, match="an adapter that was loaded; got abc"):
        generator.generate(adapter_jobs(generator, "abc"))


def test_alpha_survives(tiny_sd: Path, quick_adapter: TrainedAdapter, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("layers", ["attention", "all"])
def test_diffusers_own_loader_reads_the_adapter(
    tiny_sd: Path,
    adapt: Callable[..., TrainedAdapter],
    save_adapted: Callable[..., Path],
    quick: AdaptationSettings,
    tmp_path: Path,
    layers: str,
) -> None:
    trained = adapt(tiny_sd, replace(quick, layers=layers))
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd, dtype=torch.float32, local_files_only=True)
    pipe.load_lora_weights(save_adapted(trained, tmp_path, tiny_sd), weight_name=WEIGHTS, local_files_only=True)
    ours = {name.replace(f".{TRAINED}.", ".default_0."): tensor for name, tensor in trainable(trained).items()}
    theirs = pipe.unet.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert any(".conv1." in name for name in ours) == (layers == "all")


def test_a_file_that_names_its_layers_in_two_ways_is_loaded_whole(
    tiny_sd: Path,
    adapt: Callable[..., TrainedAdapter],
    save_adapted: Callable[..., Path],
    quick: AdaptationSettings,
    tmp_path: Path,
) -> None:
    """diffusers' own conversion renames the attention layers only, and its loader then drops them."""
    trained = adapt(tiny_sd, replace(quick, layers="all"))
    folder = save_adapted(trained, tmp_path / "saved", tiny_sd)
    mixed = rewrite(folder, tmp_path / "mixed", convert_state_dict_to_diffusers)
    assert {"lora.down" in name for name in load_file(mixed / WEIGHTS)} == {True, False}
    checkpoint = open_checkpoint(tiny_sd)
    unet = load_model(checkpoint, "unet", torch.float32)
    name = load_adapter(mixed, unet, checkpoint).fingerprint
    arrived = unet.state_dict()
    for own, tensor in trainable(trained).items():
        assert torch.equal(tensor, arrived[own.replace(f".{TRAINED}.", f".{name}.")])


def test_a_half_precision_generator_takes_the_adapter_in_its_precision(
    tiny_sd: Path, adapter_folder: Path, adapter_jobs: Callable[..., list[Job]]
) -> None:
    generator = StableDiffusion(
        open_checkpoint(tiny_sd), ImageSettings(batch_size=2, dtype="bfloat16"), adapters=[adapter_folder]
    )
    assert {tensor.dtype for tensor in generator.unet.parameters()} == {torch.bfloat16}
    assert generator.generate(adapter_jobs(generator, *generator.adapters)).isfinite().all()


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
    tiny_sd: Path, adapter_folder: Path, tmp_path: Path, change: Any, message: str
) -> None:
    folder = rewrite(adapter_folder, tmp_path / "changed", change)
    checkpoint = open_checkpoint(tiny_sd)
    with pytest.raises(InputError, match=message):
        load_adapter(folder, load_model(checkpoint, "unet", torch.float32), checkpoint)


def test_files_that_are_no_adapter_are_refused(tiny_sd: Path, adapter_folder: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_sd)
    unet = load_model(checkpoint, "unet", torch.float32)
    with pytest.raises(InputError, match="an adapter folder with"):
        load_adapter(tmp_path, unet, checkpoint)
    pickled = tmp_path / "pytorch_lora_weights.bin"
    torch.save({}, pickled)
    with pytest.raises(InputError, match="or a safetensors file"):
        load_adapter(pickled, unet, checkpoint)
    (tmp_path / WEIGHTS).write_bytes((adapter_folder / WEIGHTS).read_bytes()[:-5])
    with pytest.raises(InputError, match="a whole LoRA file"):
        load_adapter(tmp_path, unet, checkpoint)


def test_an_adapter_without_effect_is_not_saved(
    tiny_sd: Path,
    tmp_path: Path,
    adapt: Callable[..., TrainedAdapter],
    save_adapted: Callable[..., Path],
    quick: AdaptationSettings,
) -> None:
    with pytest.raises(RunError, match="the adapter changes nothing"):
        save_adapted(adapt(tiny_sd, replace(quick, updates=0)), tmp_path, tiny_sd)
    assert not (tmp_path / WEIGHTS).exists()
