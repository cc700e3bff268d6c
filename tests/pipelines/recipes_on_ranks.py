"""What two ranks of a training of every recipe do; started by test_recipes.py under torchrun.

Usage: recipes_on_ranks.py FOLDER, which has configs.json (recipe → config) and images.npz, and gets result.json.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines import TrainConfig
from pipelines.config_files import from_dict
from pipelines.loop import training_steps
from pipelines.open_data import open_data
from pipelines.optimization import build_optimizer
from pipelines.preparation import prepare_training
from pipelines.session import Session, end_session, start_session, wrap
from rebalance.data.table import ImageTable, Splits
from rebalance.ranks import broadcast_state, gather, rank, sum_over_ranks


def main() -> None:
    folder = Path(sys.argv[1])
    configs = json.loads((folder / "configs.json").read_text())
    arrays = np.load(folder / "images.npz")
    classes = tuple("abcd")
    splits = Splits(ImageTable(arrays["images"], arrays["targets"], classes))
    session = start_session("cpu")
    everyone = gather(
        {name: train(from_dict(TrainConfig, config), splits, session) for name, config in configs.items()}
    )
    if rank() == 0:
        (folder / "result.json").write_text(json.dumps(everyone))
    end_session()


def train(config: TrainConfig, splits: Splits, session: Session) -> dict[str, Any]:
    """Hashes of what this rank has after the training, and the sum of the losses of both."""
    opened = open_data(config.data, session.device, splits)
    prepared = prepare_training(config, opened, session.device)
    method = prepared.method
    steps = training_steps(
        method,
        wrap(session, method),
        build_optimizer(method, config.optimization, method.learning_rate_factors),
        prepared.data,
        prepared.batches,
        config.optimization,
        seed=config.seed,
        backward=session.accelerator.backward,
    )
    losses = [torch.stack(list(step.terms.values())).sum() for step in steps]
    sum_over_ranks(losses)
    queue = {name: buffer for name, buffer in method.named_buffers() if name.startswith("queue.")}
    broadcast_state(method.classifier)
    return {
        "parameters": digest(dict(method.named_parameters())),
        "queue": digest(queue),
        "classifier": digest(method.classifier),
        "loss": [float(loss) for loss in losses],
    }


def digest(tensors: nn.Module | dict[str, Any]) -> str:
    state = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
    parts = [tensor.detach().contiguous().numpy().tobytes() for tensor in state.values()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


if __name__ == "__main__":
    main()
