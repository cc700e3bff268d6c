"""The device and the processes of a command, by accelerate."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType, InitProcessGroupKwargs
from accelerate.state import GradientState
from accelerate.utils import DynamoBackend
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.console import warn_once
from rebalance.devices import refuse_without_float64
from rebalance.errors import InputError
from rebalance.ranks import end_with_parent, is_main, world_size

_TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")
if dist.is_available():
    import torch.distributed.nn  # before any group exists: its functions' defaults keep the group they find for good
_LAUNCHER_SETTINGS = {
    "ACCELERATE_MIXED_PRECISION": ("no", "--amp"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "--grad-accum-steps"),
    "ACCELERATE_DYNAMO_BACKEND": ("no", "--compile"),
}
"""What `accelerate launch` sets → its value that does nothing, and our flag."""
_DISTRIBUTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
_wrapped: WeakSet[DistributedDataParallel] = WeakSet()
_LONGEST_WAIT = timedelta(days=7)
"""For the others, while one rank judges images; NCCL's ten minutes are meant for gradients."""


@dataclass(frozen=True)
class Session:
    """Where a command runs.

    Args:
        accelerator: Devices, ranks, gradients, trackers. Its precision stays "no": the loop owns autocast.
        device: This rank's device.
    """

    accelerator: Accelerator
    device: torch.device


def start_session(
    device: str = "auto",
    *,
    amp: str = "no",
    tracker: str = "none",
    folder: Path | None = None,
    patient: bool = False,
) -> Session:
    """Join the other ranks and take this rank's device.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:1".
        amp: The precision that will be asked for; fp16 needs a GPU.
        tracker: Tracker, by accelerate's name, or "none".
        folder: The run's folder, for trackers that write files.
        patient: Wait for one another for days; the first session of a process decides.

    Raises:
        InputError: No such device or tracker, fp16 without a GPU, or an accelerate that would do the loop's work.
    """
    _check_device(device)
    if tracker != "none" and tracker not in _TRACKERS:
        raise InputError("a tracker", repr(tracker), f"use one of {', '.join(_TRACKERS)}, or none")
    if ":" in device:
        os.environ["ACCELERATE_TORCH_DEVICE"] = device
    if (n_parts := GradientState().num_steps) > 1:
        raise InputError(
            "no Accelerator with gradient accumulation in this process",
            f"one with {n_parts} steps, which the loop here would change",
            "use another process; --grad-accum-steps says it here",
        )
    with _without_launcher_settings(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`log_with=")  # a tracker that is not installed is refused below
        accelerator = Accelerator(
            cpu=device == "cpu" or not torch.cuda.is_available(),
            log_with=None if tracker == "none" else tracker,
            project_dir=None if folder is None else str(folder),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_LONGEST_WAIT)] if patient else None,
        )
    _check_accelerator(accelerator)
    if tracker != "none" and not accelerator.log_with:
        raise InputError(
            f"the package of --report-to {tracker}", "none installed", f"pip install {tracker}, or --report-to none"
        )
    if accelerator.device.type == "cpu" and amp == "fp16":
        raise InputError(
            "a GPU for fp16", "the CPU, which computes it in float32 without saying so", "use --amp bf16, or no"
        )
    if world_size() > 1:
        end_with_parent()
    return Session(accelerator, accelerator.device)


@contextmanager
def _without_launcher_settings() -> Iterator[None]:
    """Accelerate would do in `prepare_model` and `backward`, unseen, what the loop does by its own flags."""
    before = {name: os.environ[name] for name in _LAUNCHER_SETTINGS if name in os.environ}
    for name, (nothing, flag) in _LAUNCHER_SETTINGS.items():
        if before.get(name, nothing).lower() != nothing:
            warn_once(f"{name}={before[name]} of the launcher is not used: {flag} says it")
        os.environ[name] = nothing
    try:
        yield
    finally:
        for name in _LAUNCHER_SETTINGS:
            os.environ.pop(name)
        os.environ.update(before)


def _check_accelerator(accelerator: Accelerator) -> None:
    if accelerator.state.dynamo_plugin.backend != DynamoBackend.NO:
        raise InputError(
            "no Accelerator with a compiler of its own in this process",
            f"one with {accelerator.state.dynamo_plugin.backend.value.lower()}",
            "leave out its dynamo_backend: --compile says it",
        )
    if accelerator.mixed_precision != "no":
        raise InputError(
            "no Accelerator with a precision of its own in this process",
            f"one with {accelerator.mixed_precision}",
            "leave out its mixed_precision: --amp, or amp=, says it",
        )
    if accelerator.distributed_type not in _DISTRIBUTED:
        raise InputError(
            "one process, or plain data parallelism",
            f"{accelerator.distributed_type.value} of accelerate's configuration",
            "run `accelerate config` again, or start with torchrun",
        )


def wrap(session: Session, module: nn.Module) -> nn.Module:
    """`module` on the device and, with several ranks, in DDP."""
    wrapped: nn.Module = session.accelerator.prepare_model(module)
    if isinstance(wrapped, DistributedDataParallel):
        _wrapped.add(wrapped)
    return wrapped


def start_tracking(session: Session, update: int, settings: dict[str, Any]) -> None:
    """Open the tracker's run; with TensorBoard, what an interrupted run logged after `update` is dropped.

    Args:
        session: With the tracker.
        update: Updates done before.
        settings: What the run is started with, for trackers that show it; TensorBoard would plot it as a figure.
    """
    if session.accelerator.log_with:
        options: dict[str, Any] = {"tensorboard": {"purge_step": update}}
        name = "tensorboard" if "tensorboard" in map(str, session.accelerator.log_with) else "rebalance"
        shown = None if name == "tensorboard" else settings
        session.accelerator.init_trackers(name, config=shown, init_kwargs=options)


def track(session: Session, values: dict[str, float], update: int) -> None:
    """Send numbers to the tracker."""
    if session.accelerator.log_with and is_main():
        session.accelerator.log(values, step=update)


def end_tracking(session: Session) -> None:
    """Close the tracker's run."""
    for tracker in session.accelerator.trackers:
        tracker.finish()


def end_session() -> None:
    """Part from the other ranks once all are done; a rank that leaves early makes the others fail.

    What was wrapped cannot be trained after this.
    """
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        # A group's threads end when nothing holds it, and DDP does; one that lets go of a tensor after Python's end
        # aborts the process.
        for module in _wrapped:
            module.reducer = module.logger = module.process_group = None  # type: ignore[assignment]
        dist.destroy_process_group()


def _check_device(device: str) -> None:
    refuse_without_float64(device)
    kind = device.partition(":")[0]
    if kind not in ("auto", "cpu", "cuda"):
        raise InputError("a device: auto, cpu, cuda, cuda:1", repr(device), "name one of them")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("a cuda device", "none on this machine", "use --device auto")
