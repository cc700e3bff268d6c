"""What is known of a run that another one begins with or learns from."""

from __future__ import annotations

from pathlib import Path

from pipelines.config import TrainConfig
from pipelines.config_files import parse_pairs
from pipelines.loss_terms import parse_loss
from pipelines.runs import read_run_config
from rebalance.errors import InputError
from rebalance.files import read_json

_WITH_PRIOR = ("balanced_softmax", "balanced_mixup", "logit_adjustment", "paco", "gpaco", "bcl")


def training_of(run: Path) -> Path:
    """The folder whose `model/` the run's is: its own, or of a pipeline the training that was selected.

    Raises:
        InputError: No run folder, or a pipeline that is not finished.
    """
    saved = read_run_config(run)
    if saved["command"] != "run":
        return run
    if not (run / "metrics.json").exists():
        raise InputError("a finished run", f"{run}, which is not", "start its command again to finish it")
    arm: str = read_json(run / "metrics.json")["selected"]["arm"]
    return run / "arms" / arm / f"seed-{saved['seed']}"


def prior_in(config: TrainConfig) -> str:
    """What of the objective has the class prior in it, so that its logits are for classes alike; "" for nothing."""
    objective = config.objective
    inner = [value for name, value in parse_pairs(objective.option, "-o").items() if name == "loss"]
    losses = [parse_loss(text).name for text in objective.loss] or [objective.recipe, *inner]
    return ", ".join(name for name in losses if name in _WITH_PRIOR)
