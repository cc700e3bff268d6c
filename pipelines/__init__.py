"""What a user runs: each command as a function of its config, and training as a scikit-learn classifier.

They load torch and the rest on first use, so that `rebalance --help` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipelines.config import (
    InspectConfig,
    RebalanceConfig,
    ReportConfig,
    ResampleConfig,
    RetrainConfig,
    SynthesizeConfig,
    TrainConfig,
)
from pipelines.config_groups import (
    BudgetConfig,
    DataConfig,
    FilterConfig,
    MixingConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
    PlaceConfig,
)
from pipelines.config_use import EvaluateConfig, ExportConfig, PredictConfig
from pipelines.generator_config import GeneratorConfig, ImageFilesConfig, StableDiffusionConfig

if TYPE_CHECKING:
    from pipelines.console import show_progress
    from pipelines.estimator import RebalancedImageClassifier
    from pipelines.evaluation import evaluate
    from pipelines.exporting import export
    from pipelines.inspection import inspect
    from pipelines.model_files import load_model
    from pipelines.prediction import predict
    from pipelines.rebalancing import rebalance_and_train
    from pipelines.reporting import report
    from pipelines.resampling import resample
    from pipelines.retraining import retrain
    from pipelines.synthesis import synthesize
    from pipelines.training import train

_MODULES = {
    "RebalancedImageClassifier": "pipelines.estimator",
    "evaluate": "pipelines.evaluation",
    "export": "pipelines.exporting",
    "inspect": "pipelines.inspection",
    "load_model": "pipelines.model_files",
    "predict": "pipelines.prediction",
    "rebalance_and_train": "pipelines.rebalancing",
    "report": "pipelines.reporting",
    "resample": "pipelines.resampling",
    "retrain": "pipelines.retraining",
    "show_progress": "pipelines.console",
    "synthesize": "pipelines.synthesis",
    "train": "pipelines.training",
}

__all__ = [
    "BudgetConfig",
    "DataConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FilterConfig",
    "GeneratorConfig",
    "ImageFilesConfig",
    "InspectConfig",
    "MixingConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizationConfig",
    "PlaceConfig",
    "PredictConfig",
    "RebalanceConfig",
    "RebalancedImageClassifier",
    "ReportConfig",
    "ResampleConfig",
    "RetrainConfig",
    "StableDiffusionConfig",
    "SynthesizeConfig",
    "TrainConfig",
    "evaluate",
    "export",
    "inspect",
    "load_model",
    "predict",
    "rebalance_and_train",
    "report",
    "resample",
    "retrain",
    "show_progress",
    "synthesize",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
