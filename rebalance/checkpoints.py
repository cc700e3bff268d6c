"""Checkpoints of a training: tensors as safetensors, the rest as JSON, the newest named by `last.json`.

A checkpoint is a folder `checkpoints/update_N/`, written beside the old one; only when it is whole does `last.json`
point to it, and only then is the old one removed. A kill at any moment leaves a whole checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rebalance.errors import InputError
from rebalance.files import read_json, write_json, write_tensors


def save_checkpoint(
    folder: Path,
    update: int,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
) -> None:
    """Write a checkpoint and forget the one before it.

    Args:
        folder: The run's `checkpoints`.
        update: Updates done.
        modules: Module by name; one file each.
        optimizer: Its state; hyper-parameters are set anew on resume.
        state: Anything else, as plain values.
    """
    name = f"update_{update:07d}"
    if (folder / "last.json").exists() and read_json(folder / "last.json") == {"checkpoint": name}:
        name += "_again"  # the whole one stays until this one is
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for module_name, module in modules.items():
        write_tensors(target / f"{module_name}.safetensors", module.state_dict())
    tensors, numbers = _flatten_optimizer(optimizer)
    write_tensors(target / "optimizer.safetensors", tensors)
    write_json(target / "state.json", {"update": update, "optimizer": numbers, **state})
    write_json(folder / "last.json", {"checkpoint": name})
    for old in folder.glob("update_*"):
        if old.name != name:
            shutil.rmtree(old)


def load_checkpoint(
    folder: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Restore the newest checkpoint; its state, with `update`, or None if there is none.

    Raises:
        InputError: A file of the checkpoint is missing, damaged, or does not fit.
    """
    if not (folder / "last.json").exists():
        return None
    source = folder
    try:
        source = folder / str(read_json(folder / "last.json")["checkpoint"])
        state: dict[str, Any] = read_json(source / "state.json")
        for name, module in modules.items():
            module.load_state_dict(load_file(source / f"{name}.safetensors"))
        _restore_optimizer(optimizer, load_file(source / "optimizer.safetensors"), state.pop("optimizer"))
    except Exception as error:
        raise InputError(
            "a whole checkpoint of this run", f"{source}: {error}", "start the run again with --no-resume"
        ) from error
    return state


def _flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, float]]:
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            elif value is not None:
                numbers[f"{index}.{key}"] = value
    return tensors, numbers


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]
) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *numbers.items()]:
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
