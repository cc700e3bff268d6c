"""Adapt Stable Diffusion to the training images: train a LoRA adapter on all ranks, and save it once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from generators.lora import FACTS, WEIGHTS, adapter_file, read_tokens, save_adapter
from generators.lora_training import AdaptationSettings, train_adapter
from generators.prompt_embeddings import LearntTokens
from generators.prompts import Prompts
from generators.stable_diffusion_checkpoint import Checkpoint
from pipelines.generator_plan import Workshop, training_bar
from pipelines.session import wrap
from rebalance.data.decoding import decode
from rebalance.errors import InputError
from rebalance.files import read_json
from rebalance.ranks import barrier, is_main


def adapt(
    checkpoint: Checkpoint,
    prompts: Prompts,
    settings: AdaptationSettings,
    workshop: Workshop,
    *,
    size: int,
    token_starts: Sequence[str] | None,
) -> Path:
    """The folder of the trained adapter, inside the workshop's; what is there already is not trained again.

    Args:
        checkpoint: What is adapted.
        prompts: Of every class.
        settings: Of the training.
        workshop: The images, and where to work.
        size: Height and width at which images will be made, px.
        token_starts: For each class, what its token begins at; None learns no tokens.

    Raises:
        InputError: The adapter that is there belongs to another checkpoint.
    """
    folder = workshop.folder / "adapter"
    if not (folder / WEIGHTS).exists():
        _train(checkpoint, prompts, settings, workshop, size, token_starts, folder)
        barrier()
    elif read_json(folder / FACTS)["base"] != checkpoint.weights_hash:
        raise InputError(
            "the checkpoint that the adapter was trained on", checkpoint.name, "start again with --no-resume"
        )
    if is_main():
        shutil.rmtree(workshop.folder / "checkpoints", ignore_errors=True)
    return folder


def _train(
    checkpoint: Checkpoint,
    prompts: Prompts,
    settings: AdaptationSettings,
    workshop: Workshop,
    size: int,
    token_starts: Sequence[str] | None,
    folder: Path,
) -> None:
    table = workshop.table

    def read(rows: Tensor) -> Tensor:
        pixels = [torch.from_numpy(decode(table.images[row], size).copy()) for row in rows.tolist()]
        return torch.stack(pixels).permute(0, 3, 1, 2)

    with training_bar(settings.updates, "training the adapter") as report:
        trained = train_adapter(
            checkpoint,
            read,
            torch.from_numpy(table.targets),
            prompts,
            settings,
            size=size,
            device=workshop.session.device,
            token_starts=token_starts,
            checkpoints=workshop.folder / "checkpoints",
            wrap=lambda module: wrap(workshop.session, module),
            backward=workshop.session.accelerator.backward,
            progress=report,
        )
    if is_main():
        training = {name: value for name, value in asdict(settings).items() if name != "checkpoint_updates"}
        facts = {"classes": list(table.classes), "checkpoint": checkpoint.name, "training": training}
        save_adapter(folder, trained.unet, trained.config, checkpoint, trained.tokens, facts)


def tokens_for(adapter: Path | None, classes: tuple[str, ...]) -> LearntTokens | None:
    """The tokens that an adapter folder brings, if it does.

    Raises:
        InputError: No adapter there, or tokens that were learnt for other classes.
    """
    if adapter is None:
        return None
    adapter_file(adapter)
    tokens = read_tokens(adapter) if adapter.is_dir() else None
    if tokens is not None:
        learnt = tuple(read_json(adapter / FACTS).get("classes", ()))
        if learnt != classes:
            raise InputError(
                "an adapter with tokens for the classes of the data",
                f"{len(learnt)} others in {adapter}",
                "use it with the data that it was trained on",
            )
    return tokens
