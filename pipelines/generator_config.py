"""Settings of the image generators and of the files they are written to; nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import UseAppendAction, arg

from pipelines.checked_settings import CheckedSettings


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(CheckedSettings):
    """Which generator makes the images, how it is trained, how it is sampled.

    Stable Diffusion is trained with --mode adapted only.
    """

    generator: Literal["class-conditional", "stable-diffusion"] = "class-conditional"
    """class-conditional: a diffusion model trained on the training images themselves, nothing is downloaded.
    stable-diffusion: a checkpoint that knows the world's images, by hub name or folder."""
    generator_size: int | None = None
    """Height and width at which images are generated, px; by default the images' own, at most 64, or with Stable
    Diffusion what the checkpoint was trained at."""
    generator_channels: tuple[int, ...] | None = None
    """U-Net channels at each resolution; by default by size: 32 64 up to 16 px, 64 128 128 up to 32 px.
    class-conditional only."""
    generator_updates: int | None = None
    """Training updates; by default 1,000 up to 16 px, else 20,000; with --mode adapted 1,000."""
    generator_batch_size: int | None = None
    """Images per update; by default 64 up to 16 px, else 256; with --mode adapted 8."""
    generator_lr: float | None = None
    """Learning rate of AdamW; by default 1e-3 up to 16 px, else 4e-4; with --mode adapted 1e-4."""
    generator_ema: float = 0.999
    """Decay of the averaged weights, with warm-up; for 100,000 updates and more 0.9999. class-conditional only."""
    label_exponent: float | None = None
    """Classes are drawn in proportion to n_c to this power while the generator trains: 1 as they are, 0 alike; by
    default 1, as rare images that are drawn more are learnt by heart; with --mode adapted 0.5."""
    label_drop: float = 0.1
    """Share of labels, or of prompts, that training leaves out, for guidance."""
    generator_objective: Literal["plain", "cbdm"] = "plain"
    """cbdm (class balancing): training asks that early in sampling classes look alike, so that rare ones take over what
    frequent ones vary in; takes about twice the time and memory. class-conditional only."""
    generator_augment: float = 0.0
    """Share of training images that are turned, share that are scaled, and so on; the network is told how, so that
    made images are not. Against learning few images by heart; 0.12 in the paper. class-conditional only."""
    head_to_tail: tuple[float, ...] = ()
    """Begin from images of other classes that are noised so far (0 to 1; several take turns) instead of from noise
    alone, for example 0.5 0.6 0.7 0.8. class-conditional only."""
    guidance: float = 2.0
    """Strength of classifier-free guidance; 1 is none, above 3 diversity suffers."""
    steps: int = 20
    """Sampling steps."""
    sampling_batch: int | None = None
    """Images sampled at a time; fixed and padded, since it changes their bytes. By default 128 on a CPU, else 512,
    fewer where few are wanted; with Stable Diffusion the pixels of 2 images of 512 px on a CPU, else of 16."""
    compile_generator: bool = False
    """Compile U-Net and decoder, which takes minutes: for long trainings and many images on a GPU. An adapter is
    trained without."""


@dataclass(frozen=True, kw_only=True)
class StableDiffusionConfig(CheckedSettings):
    """Stable Diffusion: checkpoint, prompts, source images, adapter. For --generator stable-diffusion only."""

    checkpoint: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    """Stable Diffusion 1, 2, XL or a relative, with safetensors: hub name, or folder in diffusers' layout."""
    revision: str | None = None
    """Branch, tag or commit on the hub; the commit is recorded."""
    variant: str | None = None
    """Weights files to prefer, such as fp16."""
    offline: bool = False
    """Take hub checkpoints from the local cache only."""
    mode: Literal["text", "image", "adapted"] = "text"
    """text: from prompts. image: from noised images of the class, told the prompt. adapted: from prompts, after a LoRA
    adapter was trained on the training images."""
    template: UseAppendAction[tuple[str, ...]] = ()
    """Prompt with {name} in it, instead of ten built-in ones; repeat it for more, images take them in turn."""
    class_names: Path | None = None
    """What to call the classes: YAML, JSON, CSV, or lines of class and name; resolves WordNet ids. By default folder
    names as words."""
    descriptions: Path | None = None
    """What to say of the classes: YAML or JSON (class: text or list of texts), or CSV (class,text). Texts with {name}
    are prompts of their own, others follow every template."""
    negative_prompt: str = ""
    """What images are guided away from."""
    cut_prompts: bool = False
    """Cut prompts of more than 77 tokens, and say so, instead of refusing them."""
    scheduler: Literal["dpmsolver++", "unipc", "ddim", "lcm"] = "dpmsolver++"
    """Sampler; lcm for latent consistency models only."""
    strength: UseAppendAction[tuple[float, ...]] = ()
    """How far source images are noised, 0 to 1; repeat it for a mix, by default 0.4, 0.55, 0.7 and 0.85.
    --mode image only."""
    min_sources: int = 5
    """A class of fewer images borrows source images from frequent classes. --mode image only."""
    max_sources: int = 1000
    """Most own images of a class that are used as sources. --mode image only."""
    adapter: Path | None = None
    """LoRA adapter to use: folder of an earlier --mode adapted (generator/adapter), or safetensors file."""
    lora_rank: int = 8
    """Rank of the adapter. --mode adapted only."""
    lora_layers: Literal["attention", "all"] = "attention"
    """Layers of the U-Net that the adapter changes; all, convolutions too, for images unlike any that the checkpoint
    has seen. --mode adapted only."""
    class_tokens: bool = False
    """Learn a token for each class too (textual inversion), for classes whose names say little. --mode adapted only."""
    token_lr: float = 1e-3
    """Learning rate of the tokens. With --class-tokens only."""
    min_snr: float | None = None
    """Cap on the signal-to-noise ratio that weighs the adapter's loss, 5 in the paper. --mode adapted only."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory. --mode adapted only."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of sampling; auto: bfloat16 on CUDA or with --amp bf16, else float32."""
    safety_checker: bool = True
    """Drop images that the checkpoint's safety checker objects to; what it did is in the manifest."""


@dataclass(frozen=True, kw_only=True)
class ImageFilesConfig(CheckedSettings):
    """How generated images are written."""

    output_size: int | None = None
    """Height and width of the image files, px, by an antialiased resize; by default as generated."""
    format: Literal["png", "webp", "jpeg"] = "png"
    """png and webp (quicker) keep every pixel; jpeg, quality 95, takes less room."""
    shards: bool = False
    """Write the kept images as WebDataset shards, shards/*.tar, instead of the folder images/."""
    shard_images: Annotated[int, arg(metavar="N")] = 10_000
    """Images in a shard."""
    max_gb: float | None = None
    """Refuse a plan that needs more room than this on disk, and stop where one turns out to."""
