"""What a user runs: each command as a function of its config.

The functions load torch and the rest on first use, so that `rebalance --help` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipelines.config import (
    EvaluateConfig,
    InspectConfig,
    RebalanceConfig,
    ReportConfig,
    SynthesizeConfig,
    TrainConfig,
)
from pipelines.config_groups import (
    BudgetConfig,
    DataConfig,
    FilterConfig,
    GeneratorConfig,
    MixingConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
)

if TYPE_CHECKING:
    from pipelines.evaluation import evaluate
    from pipelines.inspection import inspect
    from pipelines.model_files import load_model
    from pipelines.rebalancing import rebalance_and_train
    from pipelines.reporting import report
    from pipelines.synthesis import synthesize
    from pipelines.training import train

_FUNCTIONS = {
    "evaluate": "pipelines.evaluation",
    "inspect": "pipelines.inspection",
    "load_model": "pipelines.model_files",
    "rebalance_and_train": "pipelines.rebalancing",
    "report": "pipelines.reporting",
    "synthesize": "pipelines.synthesis",
    "train": "pipelines.training",
}

__all__ = [
    "BudgetConfig",
    "DataConfig",
    "EvaluateConfig",
    "FilterConfig",
    "GeneratorConfig",
    "InspectConfig",
    "MixingConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizationConfig",
    "PlaceConfig",
    "RebalanceConfig",
    "ReportConfig",
    "SynthesizeConfig",
    "TrainConfig",
    "evaluate",
    "inspect",
    "load_model",
    "rebalance_and_train",
    "report",
    "synthesize",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _FUNCTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_FUNCTIONS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
