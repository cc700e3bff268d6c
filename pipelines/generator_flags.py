"""Settings that the chosen generator has no use for are refused, not ignored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from generators.base import MOST_STEPS
from generators.source_images import steps_of
from pipelines.config import RebalanceConfig, SynthesizeConfig
from pipelines.generator_config import GeneratorConfig, ImageFilesConfig, StableDiffusionConfig
from pipelines.given_flags import given_flags
from pipelines.ranges import refuse_outside
from rebalance.errors import InputError

_OWN_NETWORK = ("generator_channels", "generator_ema", "generator_objective", "generator_augment", "head_to_tail")
_TRAINING = ("generator_updates", "generator_batch_size", "generator_lr", "label_exponent", "label_drop")
_FROM_IMAGES = ("strength", "min_sources", "max_sources")
_ADAPTER = ("lora_rank", "lora_layers", "class_tokens", "token_lr", "min_snr", "gradient_checkpointing")


def check_generator(config: SynthesizeConfig | RebalanceConfig) -> None:
    """Check everything about the generator and its files that needs neither data nor checkpoint.

    Raises:
        InputError: A setting out of range, or one that the chosen generator or mode has no use for.
    """
    generator, files = config.generator, config.files
    if generator.generator == "class-conditional":
        _refuse(config.stable_diffusion, None, "--generator class-conditional", "add --generator stable-diffusion")
        refuse_outside({"--guidance": (generator.guidance, 1, 20), "--steps": (generator.steps, 2, MOST_STEPS)})
        for strength in generator.head_to_tail:
            refuse_outside({"--head-to-tail": (strength, 0.01, 1)})
            if steps_of(generator.steps, strength) < 1:
                raise InputError(
                    "--steps times --head-to-tail of at least 1",
                    f"{generator.steps} × {strength}",
                    "raise one of them: no step would be run",
                )
    else:
        _check_stable_diffusion(generator, config.stable_diffusion)
    if not files.shards:
        _refuse(files, ["shard_images"], "an image folder", "add --shards")
    refuse_outside(_ranges(generator, files))


def _check_stable_diffusion(generator: GeneratorConfig, config: StableDiffusionConfig) -> None:
    _refuse(generator, _OWN_NETWORK, "--generator stable-diffusion", "leave it out")
    if config.mode == "adapted":
        _refuse(config, ["adapter"], "--mode adapted, which trains one", "choose --mode text or image to use it")
    else:
        _refuse(generator, _TRAINING, f"--mode {config.mode}, which trains nothing", "add --mode adapted")
        _refuse(config, _ADAPTER, f"--mode {config.mode}, which trains nothing", "add --mode adapted")
    if config.mode != "image":
        _refuse(config, _FROM_IMAGES, f"--mode {config.mode}, which has no source images", "add --mode image")
    if not config.class_tokens:
        _refuse(config, ["token_lr"], "no tokens to learn", "add --class-tokens")
    if config.negative_prompt and generator.guidance <= 1:
        raise InputError(
            "--guidance above 1 with --negative-prompt", str(generator.guidance), "without guidance it has no effect"
        )
    for strength in config.strength:
        refuse_outside({"--strength": (strength, 0.01, 1)})
    refuse_outside(
        {
            "--guidance": (generator.guidance, 0, 30),
            "--steps": (generator.steps, 1, MOST_STEPS),
            "--min-sources": (config.min_sources, 0, 10**6),
            "--max-sources": (config.max_sources, 1, 10**9),
            "--lora-rank": (config.lora_rank, 1, 1024),
            "--token-lr": (config.token_lr, 0, 1),
            "--min-snr": (1 if config.min_snr is None else config.min_snr, 0.01, 1000),
        }
    )


def _ranges(generator: GeneratorConfig, files: ImageFilesConfig) -> dict[str, tuple[float, float, float]]:
    return {
        "--label-exponent": (_given(generator.label_exponent, 1), 0, 1),
        "--label-drop": (generator.label_drop, 0, 0.9),
        "--generator-ema": (generator.generator_ema, 0, 0.99999),
        "--generator-augment": (generator.generator_augment, 0, 1),
        "--generator-updates": (_given(generator.generator_updates, 1), 1, 10**8),
        "--generator-batch-size": (_given(generator.generator_batch_size, 1), 1, 10**6),
        "--generator-lr": (_given(generator.generator_lr, 1e-4), 1e-9, 10),
        "--generator-size": (_given(generator.generator_size, 8), 8, 8192),
        "--sampling-batch": (_given(generator.sampling_batch, 1), 1, 10**5),
        "--output-size": (_given(files.output_size, 8), 8, 8192),
        "--shard-images": (files.shard_images, 1, 10**7),
        "--max-gb": (_given(files.max_gb, 1), 0, 10**9),
    }


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def _refuse(group: Any, names: Iterable[str] | None, why: str, fix: str) -> None:
    """Refuse the named settings, or all, where they are not at their default."""
    for flag, value in given_flags(group, names).items():
        raise InputError(f"no {flag} with {why}", f"{flag} {_shown(value)}", fix)


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
