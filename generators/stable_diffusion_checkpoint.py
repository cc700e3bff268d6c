"""Stable Diffusion checkpoints: found on disk or fetched from the hub, and checked part by part.

Everything that can be wrong with a checkpoint's files is found before any of it is put to work: a pipeline of another
kind, a missing part, weights without safetensors, a truncated file, parts that do not fit one another.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import safe_open

from rebalance.errors import InputError
from rebalance.files import read_json, sha256

DEFAULT_CHECKPOINT = "stable-diffusion-v1-5/stable-diffusion-v1-5"

_OPENRAIL = "CreativeML OpenRAIL-M"
_OPENRAIL_PP = "CreativeML OpenRAIL++-M"
_STABILITY = "Stability AI Community License: commercial use is restricted, see https://stability.ai/license"
LICENCES = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _OPENRAIL,
    "runwayml/stable-diffusion-v1-5": _OPENRAIL,
    "CompVis/stable-diffusion-v1-1": _OPENRAIL,
    "CompVis/stable-diffusion-v1-2": _OPENRAIL,
    "CompVis/stable-diffusion-v1-3": _OPENRAIL,
    "CompVis/stable-diffusion-v1-4": _OPENRAIL,
    "stabilityai/stable-diffusion-2": _OPENRAIL_PP,
    "stabilityai/stable-diffusion-2-base": _OPENRAIL_PP,
    "stabilityai/stable-diffusion-2-1": _OPENRAIL_PP,
    "stabilityai/stable-diffusion-2-1-base": _OPENRAIL_PP,
    "stabilityai/stable-diffusion-xl-base-1.0": _OPENRAIL_PP,
    "stabilityai/sd-turbo": _STABILITY,
    "stabilityai/sdxl-turbo": _STABILITY,
    "SimianLuo/LCM_Dreamshaper_v7": "MIT",
}
UNKNOWN_LICENCE = "unknown: see the model card"

STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
    "safety_checker": "model",
}
"""Part → name of its weights file, without suffix."""

_ONE_ENCODER = ("unet", "vae", "text_encoder")
_LAYOUTS = {
    "StableDiffusionPipeline": _ONE_ENCODER,
    "StableDiffusionImg2ImgPipeline": _ONE_ENCODER,
    "LatentConsistencyModelPipeline": _ONE_ENCODER,
    "StableDiffusionXLPipeline": (*_ONE_ENCODER, "text_encoder_2"),
}
"""Pipeline class of `model_index.json` → parts that shape an image."""

_HUB_NAME = re.compile(r"\w[\w\-.]*/\w[\w\-.]*")


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint folder; made by `open_checkpoint`.

    Args:
        name: Hub name, or the folder's own name.
        folder: Where it is on disk.
        revision: Commit of the hub repository; None for a local folder.
        licence: Of the weights.
        variant: Such as "fp16": files of that name are read where there are some.
        index: What `model_index.json` holds.
    """

    name: str
    folder: Path
    revision: str | None
    licence: str
    variant: str | None
    index: dict[str, Any]

    @property
    def parts(self) -> tuple[str, ...]:
        """The models that shape an image."""
        return _LAYOUTS[self.index["_class_name"]]

    @property
    def xl(self) -> bool:
        """Whether it has SDXL's two text encoders."""
        return "text_encoder_2" in self.parts

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """Folders of the tokenizers, one for each text encoder."""
        return ("tokenizer", "tokenizer_2") if self.xl else ("tokenizer",)

    @property
    def pixels_per_latent(self) -> int:
        """How many pixels of a side a latent stands for; 8 in all large checkpoints."""
        return int(2 ** (len(self.config("vae")["block_out_channels"]) - 1))

    @property
    def distilled(self) -> bool:
        """Whether it was made for one to eight steps without guidance, as turbo and latent consistency models are."""
        told_guidance = self.config("unet").get("time_cond_proj_dim") is not None
        return told_guidance or any(word in self.name.lower() for word in ("turbo", "lcm", "lightning"))

    @property
    def has_safety_checker(self) -> bool:
        """Whether a safety checker came with it."""
        return bool(self.index.get("safety_checker", [None])[0]) and (self.folder / "safety_checker").is_dir()

    def config(self, part: str) -> dict[str, Any]:
        """The JSON configuration of a part."""
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        values: dict[str, Any] = read_json(self.folder / part / name)
        return values

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 over the names and contents of all files that shape an image."""
        files = [file for part in self.parts for file in (self._config_file(part), *weight_files(self, part))]
        files.append(self.folder / "scheduler" / "scheduler_config.json")
        for tokenizer in self.tokenizers:
            files += sorted(file for file in (self.folder / tokenizer).iterdir() if file.is_file())
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.relative_to(self.folder).as_posix()} {sha256(file)}\n".encode())
        return digest.hexdigest()

    def _config_file(self, part: str) -> Path:
        return self.folder / part / "config.json"


def open_checkpoint(
    source: str | Path, *, revision: str | None = None, variant: str | None = None, offline: bool = False
) -> Checkpoint:
    """Find a checkpoint, fetch it where it is not on disk yet, and check it.

    Args:
        source: A folder in diffusers' layout, or a hub name such as `stable-diffusion-v1-5/stable-diffusion-v1-5`.
        revision: Branch, tag or commit on the hub.
        variant: Weights files to prefer, such as "fp16".
        offline: Take hub checkpoints from the local cache only; also the meaning of HF_HUB_OFFLINE=1.

    Raises:
        InputError: No such checkpoint, one of another kind, or one with a missing or damaged file.
    """
    local = Path(source).expanduser()
    if local.is_dir():
        if revision is not None:
            raise InputError("a revision for hub names only", f"{revision!r} for the folder {local}", "leave it out")
        folder, name, commit = local, local.resolve().name, None
    else:
        name = str(source)
        folder = _fetch(name, revision, variant, offline)
        commit = folder.name
    if not (folder / "model_index.json").is_file():
        raise InputError(
            "a Stable Diffusion checkpoint in diffusers' folder layout",
            f"{folder}, without model_index.json",
            "convert a single-file checkpoint with diffusers' from_single_file(...).save_pretrained(FOLDER)",
        )
    index = read_json(folder / "model_index.json")
    licence = LICENCES.get(name, UNKNOWN_LICENCE)
    checkpoint = Checkpoint(name, folder, commit, licence, variant, index)
    _check(checkpoint)
    return checkpoint


def weight_files(checkpoint: Checkpoint, part: str) -> list[Path]:
    """The safetensors files of a part, shards and their index included.

    Raises:
        InputError: None, or an index without its shards.
    """
    place, stem = checkpoint.folder / part, STEMS[part]
    stored = stored_weights(place, stem, checkpoint.variant) or stored_weights(place, stem, None)
    if stored is None:
        raise InputError(f"safetensors weights {stem}.safetensors in {place}", _instead(place), _advice(place))
    if stored.suffix == ".safetensors":
        return [stored]
    shards = [place / name for name in sorted(set(read_json(stored)["weight_map"].values()))]
    for shard in shards:
        if not shard.is_file():
            raise InputError("every file of the weights", f"no {shard}", REPAIR)
    return [stored, *shards]


REPAIR = "fetch or convert the checkpoint again"


def stored_weights(place: Path, stem: str, variant: str | None) -> Path | None:
    """The weights file of a part, or the index of its shards."""
    middle = f".{variant}" if variant else ""
    names = (f"{stem}{middle}.safetensors", f"{stem}.safetensors.index{middle}.json")
    return next((place / name for name in names if (place / name).is_file()), None)


def _instead(place: Path) -> str:
    found = sorted(file.name for file in place.iterdir() if file.suffix in (".bin", ".safetensors", ".ckpt", ".pt"))
    return ", ".join(found) or "no weights at all"


def _advice(place: Path) -> str:
    variants = sorted({file.suffixes[0][1:] for file in place.glob("*.*.safetensors")})
    if variants:
        return f"ask for variant {variants[0]!r}"
    return "take a revision with safetensors; pickled weights can run code and are not read"


def _check(checkpoint: Checkpoint) -> None:
    """Refuse what cannot work, in the order in which a user would mend it."""
    kind = checkpoint.index.get("_class_name")
    if not isinstance(kind, str) or kind not in _LAYOUTS:
        raise InputError(
            f"a checkpoint of {', '.join(_LAYOUTS)}", f"{kind} in {checkpoint.folder}", "choose such a checkpoint"
        )
    safety = ("safety_checker",) if checkpoint.has_safety_checker else ()
    for part in (*checkpoint.parts, *safety, "scheduler", *checkpoint.tokenizers):
        if not (checkpoint.folder / part).is_dir():
            raise InputError(f"a {part} in the checkpoint", f"no folder {checkpoint.folder / part}", REPAIR)
    for part in (*checkpoint.parts, *safety):
        for file in weight_files(checkpoint, part):
            if file.suffix == ".safetensors":
                _check_whole(file)
    _check_noise(checkpoint)
    _check_sizes(checkpoint)


def _check_whole(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):  # reads the header, and compares it with the file's length
            pass
    except Exception as error:
        raise InputError("whole safetensors files", f"{file}: {error}", REPAIR) from error


def _check_noise(checkpoint: Checkpoint) -> None:
    """Latents and noise of another kind would be sampled wrongly, without an error."""
    vae, scheduler = checkpoint.config("vae"), str(checkpoint.config("scheduler").get("_class_name"))
    other = [f"the VAE's {name}" for name in ("latents_mean", "latents_std") if vae.get(name) is not None]
    other += [scheduler] if scheduler.startswith(("EDM", "FlowMatch")) else []
    if other:
        raise InputError(
            "latents and noise of Stable Diffusion",
            f"{', '.join(other)} in {checkpoint.folder}",
            "choose another checkpoint",
        )


def _check_sizes(checkpoint: Checkpoint) -> None:
    """Parts that fit one another: a U-Net for inpainting, or of another text encoder, would fail deep inside."""
    unet, vae = checkpoint.config("unet"), checkpoint.config("vae")
    channels, latent = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if channels != latent:
        raise InputError(
            f"a U-Net for the VAE's {latent} latent channels",
            f"one with {channels} in {checkpoint.folder}",
            "checkpoints for inpainting, depth or upscaling cannot be used",
        )
    encoders = [part for part in checkpoint.parts if part.startswith("text_encoder")]
    width = sum(checkpoint.config(part)["hidden_size"] for part in encoders)
    expected = unet.get("cross_attention_dim", 1280)
    if width != expected:
        raise InputError(
            f"text encoders of width {expected}, as the U-Net has it", f"{width} in {checkpoint.folder}", REPAIR
        )


def _fetch(name: str, revision: str | None, variant: str | None, offline: bool) -> Path:
    """The folder of a hub checkpoint in the local cache; only the files that are read are fetched."""
    if not _HUB_NAME.fullmatch(name):
        raise InputError("a checkpoint folder or a hub name OWNER/NAME", repr(name), "check the path")
    patterns = ["model_index.json", "scheduler/*.json", "tokenizer*/*.json", "tokenizer*/*.txt", "*/config.json"]
    patterns += ["feature_extractor/*.json"]
    for part, stem in STEMS.items():
        for middle in {"", f".{variant}" if variant else ""}:
            patterns += [f"{part}/{stem}{middle}.safetensors", f"{part}/{stem}{middle}-*-of-*.safetensors"]
            patterns.append(f"{part}/{stem}.safetensors.index{middle}.json")
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=offline)
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            "a checkpoint folder, or a hub checkpoint that is cached or can be fetched",
            f"{name}: {type(error).__name__}: {first}",
            "check the name and the network, or fetch it once with `hf download` and pass its folder",
        ) from error
    return Path(folder)
