"""Models and tokenizers of a Stable Diffusion checkpoint, read without pickle and without code from the checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from generators.prompts import CLIP_LENGTH
from generators.stable_diffusion_checkpoint import REPAIR, STEMS, Checkpoint, stored_weights
from rebalance.errors import InputError
from rebalance.quiet import quiet_transformers

_CLASSES: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
    "safety_checker": StableDiffusionSafetyChecker,
}
"""These, whatever a checkpoint's index says."""


def load_model(checkpoint: Checkpoint, part: str, dtype: torch.dtype) -> Any:
    """A part of the checkpoint, one of `STEMS`, frozen, in evaluation mode, on the CPU.

    Raises:
        InputError: Weights that do not fit the configuration, or are damaged.
    """
    place = checkpoint.folder / part
    plain = checkpoint.variant is None or stored_weights(place, STEMS[part], checkpoint.variant) is None
    try:
        with quiet_transformers():
            model, report = _CLASSES[part].from_pretrained(
                checkpoint.folder,
                subfolder=part,
                dtype=dtype,
                variant=None if plain else checkpoint.variant,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:
        raise InputError("whole weights that fit their configuration", f"{place}: {error}", REPAIR) from error
    absent = [str(key) for kind in ("missing_keys", "mismatched_keys") for key in report.get(kind) or ()]
    absent = [key for key in absent if not key.endswith("position_ids")]
    if absent:
        raise InputError("weights for every layer", f"none in {place} for {absent[0]} ({len(absent)} in all)", REPAIR)
    return model.eval().requires_grad_(False)


def load_tokenizer(checkpoint: Checkpoint, name: str) -> Any:
    """A tokenizer of the checkpoint, at most 77 tokens long.

    Raises:
        InputError: No readable tokenizer, or one without a vocabulary.
    """
    # The class's own constructor takes and ignores vocab_file and merges_file: every prompt would get the same ids.
    try:
        tokenizer = CLIPTokenizer.from_pretrained(
            checkpoint.folder, subfolder=name, local_files_only=True, model_max_length=CLIP_LENGTH
        )
    except Exception as error:
        raise InputError("a CLIP tokenizer", f"{checkpoint.folder / name}: {error}", REPAIR) from error
    if len(tokenizer) < 256:
        raise InputError(
            "a tokenizer with at least CLIP's 256 single-byte tokens",
            f"{len(tokenizer)} in {checkpoint.folder / name}",
            "every prompt would read alike; fetch vocab.json and merges.txt, or tokenizer.json, again",
        )
    return tokenizer
