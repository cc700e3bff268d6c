"""Optimiser and learning rate from a config."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pipelines.config_groups import OptimizationConfig
from pipelines.console import log
from rebalance.errors import InputError
from rebalance.schedules import learning_rate_factor

ADAMW_SHARE = 0.01
"""AdamW's base rate as a share of SGD's."""
LONGEST_WARMUP = 0.25
"""Share of training; a short one would never get beyond five epochs of warm-up."""


def check_optimization(config: OptimizationConfig) -> None:
    """Refuse settings that cannot work, before anything is begun.

    Raises:
        InputError: A value out of range.
    """
    positive = {
        "--epochs": config.epochs,
        "--batch-size": config.batch_size,
        "--grad-accum-steps": config.grad_accum_steps,
        "--updates": config.updates,
        "--lr": config.lr,
        "--base-lr": config.base_lr,
        "--clip-grad": config.clip_grad,
        "--sam": config.sam,
    }
    for flag, value in positive.items():
        if value is not None and not value > 0:
            raise InputError(f"{flag} > 0", str(value), "leave it out for the default")
    shares = {"--momentum": config.momentum, "--model-ema": config.model_ema, "--sam-from": config.sam_from}
    for flag, share in shares.items():
        if share is not None and not 0 <= share < 1:
            raise InputError(f"{flag} in [0, 1)", str(share), "use for example 0.9")
    if config.sam is None and config.sam_from:
        raise InputError("--sam RHO with --sam-from", "the start alone", "add for example --sam 0.1")
    for flag, number in {"--weight-decay": config.weight_decay, "--warmup-epochs": config.warmup_epochs}.items():
        if number < 0:
            raise InputError(f"{flag} >= 0", str(number), "use 0 for none")
    if config.batch_size < 2:
        raise InputError("--batch-size of at least 2", str(config.batch_size), "batch norm needs two images")


def warn_of_epochs(config: OptimizationConfig, default: int = OptimizationConfig.epochs) -> None:
    """Say that a number of epochs changes nothing where the number of updates is given.

    Args:
        config: How long.
        default: Epochs of the command, which nobody gave; nor did they give those of a config without any.
    """
    if config.updates is not None and config.epochs not in (default, OptimizationConfig.epochs):
        log.warning("--epochs %d changes nothing beside --updates %d", config.epochs, config.updates)


def base_learning_rate(config: OptimizationConfig) -> float:
    """The learning rate after warm-up: as given, or base_lr × batch size / 256."""
    if config.lr is not None:
        return config.lr
    share = ADAMW_SHARE if config.opt == "adamw" else 1.0
    return config.base_lr * share * config.batch_size / 256


def learning_rate_rule(config: OptimizationConfig) -> str:
    """Where `base_learning_rate` comes from, for the user."""
    if config.lr is not None:
        return "as given"
    share = f" × {ADAMW_SHARE:g} for AdamW" if config.opt == "adamw" else ""
    return f"base {config.base_lr:g} × {config.batch_size} / 256{share}"


def build_optimizer(
    module: nn.Module, config: OptimizationConfig, factors: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """The optimiser of `module`; biases, batch-norm and other one-dimensional parameters get no weight decay.

    Args:
        module: Its parameters that require a gradient are optimised.
        config: Optimiser and rates.
        factors: Factor of the learning rate by the beginning of a parameter's name.
    """
    members: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            factor = next((value for start, value in (factors or {}).items() if name.startswith(start)), 1.0)
            members.setdefault((factor, parameter.ndim > 1), []).append(parameter)
    groups = [
        {"params": members[key], "lr_factor": key[0], "weight_decay": config.weight_decay if key[1] else 0.0}
        for key in sorted(members, reverse=True)
    ]
    rate = base_learning_rate(config)
    if config.opt == "adamw":
        return torch.optim.AdamW(groups, lr=rate)
    return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, nesterov=config.momentum > 0)


def set_learning_rate(
    optimizer: torch.optim.Optimizer, config: OptimizationConfig, epoch: float, epochs: float
) -> float:
    """Set the learning rate at the 0-based `epoch` of `epochs`, fractions both; that of parameters without a factor."""
    warmup = min(config.warmup_epochs, LONGEST_WARMUP * epochs)
    rate = base_learning_rate(config) * learning_rate_factor(epoch, epochs, schedule=config.sched, warmup_epochs=warmup)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_factor", 1.0)
    return rate
