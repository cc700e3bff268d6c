"""What two ranks of a training do, rank by rank; started by test_two_ranks.py under torchrun.

Usage: two_ranks.py OUTPUT N_TRAIN UPDATES
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from pipelines import DataConfig, ModelConfig, ObjectiveConfig, OptimizationConfig, PlaceConfig, TrainConfig, precision
from pipelines.loop import TrainingData, training_steps
from pipelines.open_data import open_data
from pipelines.optimization import build_optimizer
from pipelines.preparation import prepare_training
from pipelines.session import end_session, start_session, wrap
from rebalance.data.table import ImageTable, Splits
from rebalance.ranks import broadcast_state, gather, rank


def check_precision(device: torch.device) -> None:
    """Rank 0 decides for all, though another one may run on another kind of machine."""
    is_known, precision._is_known_for_bf16 = precision._is_known_for_bf16, lambda device: rank() == 0
    assert precision.resolve_amp("auto", device, 32) == "bf16"
    precision._is_known_for_bf16 = is_known


def main() -> None:
    output, n_train, updates = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    session = start_session("cpu", patient=True)
    assert dist.group.WORLD._get_backend(torch.device("cpu")).options._timeout.days == 7, "a rank may judge for hours"
    assert group_threads() or sys.platform != "linux", "gloo's threads have other names in this version"
    check_precision(session.device)
    stream = np.random.default_rng(0)
    images = stream.integers(0, 256, (n_train, 8, 8, 3), dtype=np.uint8)
    table = ImageTable(images, np.sort(stream.integers(0, 4, n_train)), ("a", "b", "c", "d"))
    config = TrainConfig(
        data=DataConfig(data="made", image_size=8),
        model=ModelConfig(model="small_cnn"),
        objective=ObjectiveConfig(method="balanced_softmax", sampler_rule="none"),
        optimization=OptimizationConfig(updates=updates, batch_size=64),
        place=PlaceConfig(device="cpu", report_to="none"),
    )
    opened = open_data(config.data, session.device, Splits(table))
    prepared = prepare_training(config, opened, session.device)
    seen: list[int] = []
    make_batch = TrainingData.batch

    def remember(self: TrainingData, pixels: torch.Tensor, rows: np.ndarray, *rest: object) -> object:
        seen.extend(rows.tolist())
        return make_batch(self, pixels, rows, *rest)  # type: ignore[arg-type]

    TrainingData.batch = remember  # type: ignore[method-assign,assignment]
    module = wrap(session, prepared.method)
    steps = training_steps(
        prepared.method,
        module,
        build_optimizer(prepared.method, config.optimization),
        prepared.data,
        prepared.batches,
        config.optimization,
        seed=0,
        backward=session.accelerator.backward,
    )
    n_steps = sum(1 for _ in steps)
    parameters = torch.cat([p.detach().flatten() for p in prepared.method.parameters()])
    broadcast_state(prepared.method.classifier)
    state = torch.cat([t.detach().double().flatten() for t in prepared.method.classifier.state_dict().values()])
    mine = {
        "steps": n_steps,
        "seen": seen,
        "parameters": hashlib.sha256(parameters.numpy().tobytes()).hexdigest(),
        "state": hashlib.sha256(state.numpy().tobytes()).hexdigest(),
    }
    everyone = gather(mine)
    if rank() == 0:
        output.write_text(json.dumps({"ranks": everyone, "per_epoch": prepared.batches.updates_per_epoch}))
    end_session()
    assert not group_threads(), "threads of the group outlive it: one may abort this process on its way out"


def group_threads() -> list[str]:
    """Names of the threads on which gloo works; on Linux, elsewhere none."""
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


if __name__ == "__main__":
    main()
