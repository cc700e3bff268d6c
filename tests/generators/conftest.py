"""Stable Diffusion checkpoints small enough to load in a second."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

TINY_SD = Path(__file__).parents[1] / "assets" / "tiny_sd"


@pytest.fixture(scope="session")
def tiny_sd() -> Path:
    """Trained on digits, 16 px; see tests/assets/train_tiny_sd.py."""
    return TINY_SD


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SDXL's layout: the parts of `tiny_sd`, a second text encoder and a U-Net for both, the latter two untrained."""
    folder = tmp_path_factory.mktemp("sdxl") / "tiny_sdxl"
    shutil.copytree(TINY_SD, folder, ignore=shutil.ignore_patterns("unet", "safety_checker", "feature_extractor"))
    shutil.copytree(folder / "tokenizer", folder / "tokenizer_2")
    text = json.loads((TINY_SD / "text_encoder" / "config.json").read_text())
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    # SDXL's own configuration says 2 for the end token, which makes CLIP take the highest id for it.
    second = CLIPTextConfig(**sizes, projection_dim=20, vocab_size=text["vocab_size"], eos_token_id=2)
    CLIPTextModelWithProjection(second).save_pretrained(folder / "text_encoder_2")
    UNet2DConditionModel(
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=(2, 4),
        cross_attention_dim=text["hidden_size"] + 24,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=20 + 6 * 8,
        use_linear_projection=True,
    ).save_pretrained(folder / "unet")
    index = json.loads((folder / "model_index.json").read_text())
    index = {name: value for name, value in index.items() if "safety" not in name and name != "feature_extractor"} | {
        "_class_name": "StableDiffusionXLPipeline",
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "force_zeros_for_empty_prompt": True,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def edit_json() -> Callable[..., None]:
    """Change values of a JSON file."""

    def edit(file: Path, **values: Any) -> None:
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return edit


@pytest.fixture
def edit_weights() -> Callable[..., None]:
    """Change the tensors of a safetensors file by a function of name and tensor."""

    def edit(file: Path, change: Callable[[str, torch.Tensor], torch.Tensor | None]) -> None:
        made = {name: change(name, tensor) for name, tensor in load_file(file).items()}
        save_file({name: tensor for name, tensor in made.items() if tensor is not None}, file, {"format": "pt"})

    return edit


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a checkpoint, to be broken."""

    def copy(source: Path) -> Path:
        target = tmp_path / source.name
        shutil.copytree(source, target)
        return target

    return copy
