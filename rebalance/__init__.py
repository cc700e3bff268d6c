"""Balance computed once and used three times: by the sampler, by the loss, by the synthesis budget.

The names below load their module on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rebalance.budget import images_to_add
    from rebalance.counts import class_counts, imbalance_statistics, shot_groups
    from rebalance.errors import InputError, RunError
    from rebalance.profiles import long_tail_counts, long_tail_subset
    from rebalance.samplers import EpochSampler
    from rebalance.schedules import parse_schedule
    from rebalance.weights import class_weights

__version__ = "0.1.0"

_MODULES = {
    "EpochSampler": "rebalance.samplers",
    "InputError": "rebalance.errors",
    "RunError": "rebalance.errors",
    "class_counts": "rebalance.counts",
    "class_weights": "rebalance.weights",
    "images_to_add": "rebalance.budget",
    "imbalance_statistics": "rebalance.counts",
    "long_tail_counts": "rebalance.profiles",
    "long_tail_subset": "rebalance.profiles",
    "parse_schedule": "rebalance.schedules",
    "shot_groups": "rebalance.counts",
}

__all__ = [
    "EpochSampler",
    "InputError",
    "RunError",
    "class_counts",
    "class_weights",
    "images_to_add",
    "imbalance_statistics",
    "long_tail_counts",
    "long_tail_subset",
    "parse_schedule",
    "shot_groups",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
