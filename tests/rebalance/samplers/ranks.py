"""Run by torchrun: trains three epochs on every rank, stops in the middle of the second, goes on when started again."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from rebalance.samplers import ClassBatchSampler, DistributedEpochSampler, EpochSampler, MixedSourceSampler

RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
BATCH = 40 // WORLD  # of a rank; 480 rows are 12 steps, whatever the number of ranks
EPOCHS, STOP = 3, (1, 5)


class Rows(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self) -> None:
        self.targets = [row % 5 for row in range(480)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return torch.tensor([row / 480, 1.0]), row


def train(
    loop: str,
    model: torch.nn.Module,
    sampler: Any,
    batches: Callable[[int], Iterable[Any]],
    backward: Callable[[torch.Tensor], None],
) -> None:
    path = Path(sys.argv[1]) / f"{loop}-{RANK}.json"
    log: dict[str, Any] = {"rows": {}, "starts": 0, "state": None}
    if path.exists():
        log = json.loads(path.read_text())
        sampler.load_state_dict(log["state"])
        model.load_state_dict({name: torch.tensor(value) for name, value in log["weight"].items()})
    first_start = log["starts"] == 0
    log["starts"] += 1
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(log["state"]["epoch"] if log["state"] else 0, EPOCHS):
        for step, (inputs, rows) in enumerate(batches(epoch)):
            if first_start and (epoch, step) == STOP:
                break
            backward(model(inputs).square().mean())
            optimizer.step()
            optimizer.zero_grad()
            sampler.consumed(len(rows) * WORLD)
            log["rows"].setdefault(str(epoch), []).extend(rows.tolist())
        log["state"] = sampler.state_dict()
        log["weight"] = {name: value.tolist() for name, value in model.state_dict().items()}
        if first_start and epoch == STOP[0]:
            break
    path.write_text(json.dumps(log))


def ddp() -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(2, 1))
    sampler = DistributedEpochSampler(Rows(), rule="inverse", seed=7, batch_size=BATCH)
    loader = DataLoader(Rows(), batch_sampler=sampler)

    def batches(epoch: int) -> Iterable[Any]:
        sampler.set_epoch(epoch)
        return loader

    train("ddp", model, sampler, batches, lambda loss: loss.backward())


def prepared() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Samplers of loops with accelerate, and how a loader takes each."""
    rows = EpochSampler(Rows(), rule="inverse", seed=7)
    classes = ClassBatchSampler(Rows(), 5, BATCH // 5, seed=7)
    real, synthetic = EpochSampler(Rows().targets[:300], seed=7), EpochSampler(Rows().targets[300:], seed=8)
    mixed = MixedSourceSampler(real, synthetic, batch_size=BATCH, real_share=0.5, num_samples=480)
    untold = ClassBatchSampler(Rows(), 5, BATCH // 5, seed=7)
    return {
        "accelerate": (rows, {"sampler": rows, "batch_size": BATCH}),
        "accelerate-classes": (classes, {"batch_sampler": classes}),
        "accelerate-mixed": (mixed, {"batch_sampler": mixed}),
        "accelerate-untold": (untold, {"batch_sampler": untold}),
    }


def accelerated(accelerator: Accelerator, loop: str) -> None:
    set_seed(0, device_specific=True)  # ranks seeded apart, as scripts for augmentation do
    sampler, options = prepared()[loop]
    torch.manual_seed(0)
    model, loader = accelerator.prepare(torch.nn.Linear(2, 1), DataLoader(Rows(), **options))

    def batches(epoch: int) -> Iterable[Any]:
        if loop != "accelerate-untold":  # there the loader counts, from 0 when it is started again
            loader.set_epoch(epoch)  # the sampler itself is not told
        return loader  # type: ignore[no-any-return]

    train(loop, model, sampler, batches, accelerator.backward)


if __name__ == "__main__":
    start = Accelerator(cpu=True)  # also starts torch.distributed (gloo)
    ddp()
    for name in prepared():
        accelerated(start, name)
    torch.distributed.barrier()  # a rank that leaves early makes the others fail
    os._exit(0)  # gloo's threads now and then abort an interpreter that winds down
