"""Stable Diffusion checkpoints small enough to load in a second, what they make, and adapters of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from generators.base import Job
from generators.latent_sampling import Sampling
from generators.lora import save_adapter
from generators.lora_training import AdaptationSettings, TrainedAdapter, train_adapter
from generators.prompts import Prompts, make_prompts
from generators.stable_diffusion import StableDiffusion
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_jobs import text_jobs
from generators.stable_diffusion_settings import ImageSettings
from rebalance.data.decoding import decode
from rebalance.data.digits import read_digits
from rebalance.data.table import ByteArray, content_hash

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASSES = tuple(str(i) for i in range(10))
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


# Images of the tiny checkpoint


@pytest.fixture(scope="session")
def digit_sources() -> dict[str, ByteArray]:
    """Three digits by hash, 8 px."""
    images = [np.asarray(image) for image in read_digits().train.images[:3]]
    return {content_hash(image).hex(): image for image in images}


@pytest.fixture(scope="session")
def tiny_generator(digit_sources: dict[str, ByteArray]) -> StableDiffusion:
    """Four images at a time."""
    return StableDiffusion(open_checkpoint(TINY_SD), ImageSettings(batch_size=4), sources=digit_sources)


@pytest.fixture(scope="session")
def text_plan() -> Callable[..., list[Job]]:
    """n jobs of each digit, the digits taking turns; three steps and the negative prompt "dark" unless told."""
    dark = make_prompts(CLASSES, names=dict(zip(CLASSES, NAMES, strict=True)), negative="dark")

    def plan(
        generator: StableDiffusion, n: int, sampling: Sampling | None = None, prompts: Prompts = dark
    ) -> list[Job]:
        sampling = sampling or Sampling(steps=3)
        jobs = text_jobs(generator.fingerprint, CLASSES, [n] * 10, prompts, sampling, reserve=0, seed=0)
        return [job for own in zip(*jobs, strict=True) for job in own]

    return plan


# Adapters


@pytest.fixture(scope="session")
def digit_images() -> Callable[[str], tuple[Tensor, Tensor]]:
    """Split → digits (N, 3, 16, 16) uint8 and labels."""

    def read(split: str) -> tuple[Tensor, Tensor]:
        table = read_digits().tables()[split]
        pixels = torch.stack([torch.from_numpy(decode(image, 16).copy()) for image in table.images])
        return pixels.permute(0, 3, 1, 2), torch.from_numpy(table.targets)

    return read


@pytest.fixture(scope="session")
def digit_tail(digit_images: Callable[[str], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """100 zeros, 50 ones, …, 10 nines, and their labels."""
    images, labels = digit_images("train")
    rows = torch.cat([(label == labels).nonzero().flatten()[: 100 // (label + 1)] for label in range(10)])
    return images[rows], labels[rows]


@pytest.fixture(scope="session")
def quick() -> AdaptationSettings:
    """A training of a second."""
    return AdaptationSettings(updates=4, batch_size=3, rank=4, lr=1e-2, checkpoint_updates=2)


@pytest.fixture(scope="session")
def adapt(digit_tail: tuple[Tensor, Tensor], quick: AdaptationSettings) -> Callable[..., TrainedAdapter]:
    """Train an adapter of a checkpoint, quickly and on inverted digits unless told."""
    images, labels = digit_tail

    def train(folder: Path, settings: AdaptationSettings = quick, **options: Any) -> TrainedAdapter:
        prompts = options.pop("prompts", make_prompts(NAMES))
        read = options.pop("read", lambda rows: 255 - images[rows])
        return train_adapter(open_checkpoint(folder), read, labels, prompts, settings, size=16, **options)

    return train


@pytest.fixture(scope="session")
def save_adapted() -> Callable[..., Path]:
    """Save an adapter to a folder; the folder."""

    def save(trained: TrainedAdapter, folder: Path, base: Path) -> Path:
        save_adapter(folder, trained.unet, trained.config, open_checkpoint(base), trained.tokens, {"updates": 4})
        return folder

    return save


@pytest.fixture(scope="session")
def quick_adapter(adapt: Callable[..., TrainedAdapter]) -> TrainedAdapter:
    """Trained quickly."""
    return adapt(TINY_SD)


@pytest.fixture(scope="session")
def adapter_folder(
    quick_adapter: TrainedAdapter, save_adapted: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Where `quick_adapter` is saved."""
    return save_adapted(quick_adapter, tmp_path_factory.mktemp("adapter"), TINY_SD)


@pytest.fixture(scope="session")
def adapter_jobs() -> Callable[..., list[Job]]:
    """A job of each of the first three digits."""
    plain = make_prompts(NAMES)

    def jobs(generator: StableDiffusion, adapter: str = "", prompts: Prompts = plain) -> list[Job]:
        budget = [1] * 3 + [0] * 7
        sampling = Sampling(steps=3)
        plan = text_jobs(generator.fingerprint, CLASSES, budget, prompts, sampling, reserve=0, seed=0, adapter=adapter)
        return [job for own in plan for job in own]

    return jobs
