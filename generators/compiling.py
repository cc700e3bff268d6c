"""Compiled networks of diffusers."""

from __future__ import annotations

import warnings

from torch import nn


def compile_in_place(module: nn.Module) -> None:
    """Compile `module` when it is first called; it stays the same object, with the names of its weights."""
    warnings.filterwarnings(
        "ignore", "Dynamo detected a call to a `functools.lru_cache`"
    )  # of diffusers' version check
    module.compile()
