"""What makes new samples. The names below load their module on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generators.estimator import ClassConditionalDiffusion

_MODULES = {"ClassConditionalDiffusion": "generators.estimator"}

__all__ = ["ClassConditionalDiffusion"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
