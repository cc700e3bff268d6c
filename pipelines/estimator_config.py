"""The scikit-learn classifier's parameters as the config of `rebalance train`."""

from __future__ import annotations

from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sklearn.utils import check_random_state

from pipelines.config import TrainConfig
from pipelines.config_files import plain
from pipelines.config_groups import DataConfig, ModelConfig, ObjectiveConfig, OptimizationConfig, PlaceConfig
from pipelines.estimator_inputs import FeatureFormat, Format
from rebalance.cpus import usual_workers
from rebalance.ranks import split_batches

_WARMUP = (0.1, 5.0)
"""Share of training that the learning rate warms up over, and the most epochs."""


def training_config(estimator: Any, n: int, form: Format) -> TrainConfig:
    """What the command line would have been given.

    Args:
        estimator: A `RebalancedImageClassifier`.
        n: Training images.
        form: What they look like.
    """
    options = {name: yaml.safe_dump(plain(value)).splitlines()[0] for name, value in (estimator.options or {}).items()}
    length = estimator.epochs
    if estimator.updates is not None:
        length = estimator.updates / len(split_batches(n, estimator.batch_size))
    share, most = _WARMUP
    return TrainConfig(
        data=DataConfig(
            data="X",
            image_size=estimator.image_size,
            augment="none" if isinstance(form, FeatureFormat) and estimator.augment == "auto" else estimator.augment,
            skip_corrupt=estimator.skip_corrupt,
            workers=usual_workers() if estimator.workers is None else estimator.workers,
        ),
        model=ModelConfig(
            model=estimator.model, weights=None if estimator.weights is None else Path(estimator.weights)
        ),
        objective=ObjectiveConfig(
            method=estimator.method,
            option=tuple(f"{name}={text}" for name, text in options.items()),
            sampler_rule=estimator.sampler_rule,
            sampler_strength=estimator.sampler_strength,
            sampler_schedule=estimator.sampler_schedule,
            loss_rule=estimator.loss_rule,
            loss_strength=estimator.loss_strength,
            loss_schedule=estimator.loss_schedule,
            cb_beta=estimator.cb_beta,
            class_weight=tuple(f"{label}={weight}" for label, weight in (estimator.custom or {}).items()),
        ),
        optimization=OptimizationConfig(
            epochs=estimator.epochs,
            updates=estimator.updates,
            batch_size=estimator.batch_size,
            lr=estimator.lr,
            opt=estimator.opt,
            weight_decay=estimator.weight_decay,
            warmup_epochs=min(most, share * length),
        ),
        seed=_seed(estimator.random_state),
        place=PlaceConfig(device=estimator.device, report_to="none", checkpoint_updates=10**9),
    )


def _seed(random_state: Any) -> int:
    """An int as it is, so that it does what --seed does."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
