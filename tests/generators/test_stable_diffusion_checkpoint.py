from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from generators.stable_diffusion_checkpoint import DEFAULT_CHECKPOINT, UNKNOWN_LICENCE, open_checkpoint
from generators.stable_diffusion_loading import load_model, load_tokenizer
from rebalance.errors import InputError

Copy = Callable[[Path], Path]
Edit = Callable[..., None]
UNET = Path("unet") / "diffusion_pytorch_model.safetensors"
COMMIT = "1d0c4ebf6ff58a5caecab40fa1406526bca4b5b9"


def test_a_local_folder(tiny_sd: Path) -> None:
    checkpoint = open_checkpoint(tiny_sd)
    assert (checkpoint.name, checkpoint.revision, checkpoint.xl) == ("tiny_sd", None, False)
    assert checkpoint.licence == UNKNOWN_LICENCE
    assert checkpoint.has_safety_checker
    assert checkpoint.pixels_per_latent == 2


def test_the_layout_of_sdxl(tiny_sdxl: Path) -> None:
    checkpoint = open_checkpoint(tiny_sdxl)
    assert checkpoint.xl
    assert checkpoint.parts == ("unet", "vae", "text_encoder", "text_encoder_2")
    assert checkpoint.tokenizers == ("tokenizer", "tokenizer_2")
    assert not checkpoint.has_safety_checker


def test_distilled_models_are_known(tiny_sd: Path, copy_of: Copy, edit_json: Edit) -> None:
    assert not open_checkpoint(tiny_sd).distilled
    folder = copy_of(tiny_sd)
    assert open_checkpoint(folder.rename(folder.with_name("my-Turbo"))).distilled
    folder = copy_of(tiny_sd)
    edit_json(folder / "unet" / "config.json", time_cond_proj_dim=256)
    assert open_checkpoint(folder).distilled


@pytest.mark.parametrize(
    "part", ["unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"]
)
def test_a_missing_component_is_named(tiny_sdxl: Path, copy_of: Copy, part: str) -> None:
    folder = copy_of(tiny_sdxl)
    shutil.rmtree(folder / part)
    with pytest.raises(InputError, match=f"expected a {part} in the checkpoint; got no folder {folder / part};"):
        open_checkpoint(folder)


def test_weights_without_safetensors_are_refused(tiny_sd: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_sd)
    torch.save(load_file(folder / UNET), (folder / UNET).with_suffix(".bin"))
    (folder / UNET).unlink()
    with pytest.raises(InputError, match=r"safetensors weights.*unet; got diffusion_pytorch_model\.bin;.*pickled"):
        open_checkpoint(folder)


def test_truncated_weights_are_refused(tiny_sd: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_sd)
    content = (folder / UNET).read_bytes()
    (folder / UNET).write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"whole safetensors files; got {folder / UNET}"):
        open_checkpoint(folder)


def test_a_missing_shard_is_named(tiny_sd: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_sd)
    shard = "diffusion_pytorch_model-00002-of-00002.safetensors"
    (folder / UNET).unlink()
    (folder / "unet" / f"{UNET.name}.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(InputError, match=f"every file of the weights; got no .*{shard}"):
        open_checkpoint(folder)


def test_sharded_weights_are_read(tiny_sd: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_sd)
    whole = load_model(open_checkpoint(tiny_sd), "unet", torch.float32)
    shutil.rmtree(folder / "unet")
    whole.save_pretrained(folder / "unet", max_shard_size="1MB")
    assert len(list((folder / "unet").glob("*-of-*.safetensors"))) > 1
    sharded = load_model(open_checkpoint(folder), "unet", torch.float32)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, sharded.state_dict()[name])


def test_weights_of_a_variant_alone_name_it(tiny_sd: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_sd)
    (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(InputError, match="ask for variant 'fp16'"):
        open_checkpoint(folder)
    checkpoint = open_checkpoint(folder, variant="fp16")  # the other parts have no such file
    assert torch.equal(
        load_model(checkpoint, "unet", torch.float32).conv_in.weight,
        load_model(open_checkpoint(tiny_sd), "unet", torch.float32).conv_in.weight,
    )


def test_a_pipeline_of_another_kind_is_refused(tiny_sd: Path, copy_of: Copy, edit_json: Edit) -> None:
    folder = copy_of(tiny_sd)
    edit_json(folder / "model_index.json", _class_name="FluxPipeline")
    with pytest.raises(InputError, match="got FluxPipeline"):
        open_checkpoint(folder)
    edit_json(folder / "model_index.json", _class_name=["my_pipeline", "Mine"])  # would be code from the checkpoint
    with pytest.raises(InputError, match="my_pipeline"):
        open_checkpoint(folder)


def test_an_inpainting_unet_is_refused(tiny_sd: Path, copy_of: Copy, edit_json: Edit) -> None:
    folder = copy_of(tiny_sd)
    edit_json(folder / "unet" / "config.json", in_channels=9)
    with pytest.raises(InputError, match="VAE's 4 latent channels; got one with 9"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("part", "changes", "got"),
    [
        (
            "vae/config.json",
            {"latents_mean": [1.0] * 4, "latents_std": [2.0] * 4},
            "the VAE's latents_mean, ",
        ),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMDPMSolverMultistepScheduler"}, "EDMDPMSolver"),
        ("scheduler/scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEuler"),
    ],
)
def test_latents_and_noise_of_another_kind_are_refused(
    tiny_sd: Path, copy_of: Copy, edit_json: Edit, part: str, changes: dict[str, Any], got: str
) -> None:
    folder = copy_of(tiny_sd)
    edit_json(folder / part, **changes)
    with pytest.raises(InputError, match=f"latents and noise of Stable Diffusion; got {got}"):
        open_checkpoint(folder)


def test_parts_of_different_checkpoints_are_refused(tiny_sd: Path, copy_of: Copy, edit_json: Edit) -> None:
    folder = copy_of(tiny_sd)
    edit_json(folder / "text_encoder" / "config.json", hidden_size=48)
    with pytest.raises(InputError, match="text encoders of width 32, as the U-Net has it; got 48"):
        open_checkpoint(folder)


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_layers_without_weights_are_refused(tiny_sd: Path, copy_of: Copy, edit_weights: Edit, part: str) -> None:
    folder = copy_of(tiny_sd)
    (file,) = (folder / part).glob("*.safetensors")
    lost = sorted(load_file(file))[3]
    edit_weights(file, lambda name, tensor: None if name == lost else tensor)
    with pytest.raises(InputError, match="expected w"):
        load_model(open_checkpoint(folder), part, torch.float32)


def test_paths_that_lead_nowhere(tmp_path: Path, tiny_sd: Path) -> None:
    with pytest.raises(InputError, match=r"folder or a hub name OWNER/NAME; got './nowhere'"):
        open_checkpoint("./nowhere")
    with pytest.raises(InputError, match=r"without model_index\.json; convert a single-file checkpoint"):
        open_checkpoint(tmp_path)
    with pytest.raises(InputError, match="a revision for hub names only"):
        open_checkpoint(tiny_sd, revision="main")


def test_the_weights_hash_covers_what_shapes_an_image(tiny_sd: Path, copy_of: Copy, edit_json: Edit) -> None:
    folder = copy_of(tiny_sd)
    before = open_checkpoint(tiny_sd).weights_hash
    assert open_checkpoint(folder).weights_hash == before
    (folder / "README.md").write_text("a model card")
    edit_json(folder / "feature_extractor" / "preprocessor_config.json", size=8)
    assert open_checkpoint(folder).weights_hash == before
    edit_json(folder / "scheduler" / "scheduler_config.json", beta_end=0.013)
    assert open_checkpoint(folder).weights_hash != before


# Hub


@pytest.fixture
def hub_cache(tmp_path: Path, tiny_sd: Path) -> Path:
    """A cache as the hub's client keeps it, with one checkpoint."""
    place = tmp_path / "hub" / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    shutil.copytree(tiny_sd, place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    return tmp_path / "hub"


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_hub_checkpoint_is_read_from_the_cache(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    checkpoint = open_checkpoint(DEFAULT_CHECKPOINT, revision=revision, offline=True)
    assert (checkpoint.name, checkpoint.revision) == (DEFAULT_CHECKPOINT, COMMIT)
    assert checkpoint.licence == "CreativeML OpenRAIL-M"
    assert load_model(checkpoint, "unet", torch.float32).config.in_channels == 4


def test_the_libraries_own_switch_keeps_it_offline(hub_cache: Path) -> None:
    code = "from generators.stable_diffusion_checkpoint import *; print(open_checkpoint(DEFAULT_CHECKPOINT).revision)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_CACHE": str(hub_cache), "HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == COMMIT


def test_a_hub_checkpoint_that_is_not_cached_says_what_to_do(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    with pytest.raises(InputError, match=r"hub checkpoint that is cached.*stabilityai/sd-turbo.*`hf download`"):
        open_checkpoint("stabilityai/sd-turbo", offline=True)


# Tokenizers and precision


def test_both_tokenizer_layouts_read_alike(tiny_sd: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_sd)
    model = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])))
    (folder / "tokenizer" / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')  # no length
    ours = load_tokenizer(open_checkpoint(folder), "tokenizer")
    assert ours.model_max_length == 77
    text = "a photo of a Seven"
    assert ours(text).input_ids == load_tokenizer(open_checkpoint(tiny_sd), "tokenizer")(text).input_ids


def test_a_vocabulary_that_was_not_read_is_refused(tiny_sd: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_sd)
    shutil.rmtree(folder / "tokenizer")
    CLIPTokenizer(model_max_length=77).save_pretrained(folder / "tokenizer")
    with pytest.raises(InputError, match="256 single-byte tokens"):
        load_tokenizer(open_checkpoint(folder), "tokenizer")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "safety_checker"])
def test_the_precision_asked_for_is_the_precision_loaded(tiny_sd: Path, part: str, dtype: torch.dtype) -> None:
    model: Any = load_model(open_checkpoint(tiny_sd), part, dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
