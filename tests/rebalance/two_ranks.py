"""Run by torchrun: what two processes need from one another."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from rebalance import ranks
from rebalance.errors import InputError
from rebalance.metrics import Tally


class EveryKind(nn.Module):
    """Parameters in two memory formats, and buffers of all types that methods keep."""

    def __init__(self, fill: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("mask", torch.tensor([bool(fill), not fill, True]))
        self.register_buffer("position", torch.tensor(7 * fill))
        self.register_buffer("queue", torch.full((2, 3), float(fill), dtype=torch.float64))
        self.register_buffer("short", torch.full((5,), float(fill), dtype=torch.bfloat16))
        self.register_buffer("bytes", torch.full((5,), fill, dtype=torch.uint8))
        self.register_buffer("empty", torch.zeros(0, 3))
        for parameter in self.parameters():
            nn.init.constant_(parameter, float(fill))


def check(folder: Path) -> None:
    me = ranks.rank()
    assert (ranks.world_size(), ranks.is_main()) == (2, me == 0)
    objects = ranks.gather({"rank": me, "error": InputError("a", "b", "c") if me else None})
    assert [item["rank"] for item in objects] == [0, 1]
    assert str(objects[1]["error"]) == "expected a; got b; c"
    assert ranks.broadcast([me, "ü"]) == [0, "ü"]

    tensors = [torch.tensor([me, 10]), torch.zeros((0, 0), dtype=torch.int64), torch.tensor(0.5 + me).double()]
    ranks.sum_over_ranks(tensors)
    assert tensors[0].tolist() == [1, 20]
    assert float(tensors[2]) == 2.0

    module = EveryKind(me)
    stride = module.convolution.weight.stride()
    ranks.broadcast_state(module)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, EveryKind(0).state_dict()[name]), name
    assert module.convolution.weight.stride() == stride

    # Every row of an epoch is used once, and each rank makes as many steps as the other.
    rows, steps = [], []
    for n_rows, batch_size in ((1000, 64), (961, 64), (67, 64), (5, 64)):
        bounds = ranks.split_batches(n_rows, batch_size)
        mine = [ranks.shard(np.arange(n_rows)[begin:end]) for begin, end in bounds]
        assert all(len(part) >= 2 for part in mine), (n_rows, batch_size)
        rows.append(np.concatenate(mine).tolist())
        steps.append(len(bounds))
    both = ranks.gather((rows, steps))
    assert both[0][1] == both[1][1] == [16, 15, 1, 1]
    for n_rows, one, other in zip((1000, 961, 67, 5), both[0][0], both[1][0], strict=True):
        assert sorted(one + other) == list(range(n_rows))

    # A sharded tally, summed, is the tally of the whole.
    logits, targets = torch.randn(101, 3, generator=torch.Generator().manual_seed(0)), torch.arange(101) % 3
    whole, part = Tally(3, ["many", "medium", "few"]), Tally(3, ["many", "medium", "few"])
    whole.update(logits, targets)
    index = torch.from_numpy(ranks.shard(np.arange(101)))
    part.update(logits[index], targets[index])
    ranks.sum_over_ranks(part.state())
    assert part.metrics()["confusion"] == whole.metrics()["confusion"]
    assert abs(part.metrics()["ece"] - whole.metrics()["ece"]) < 1e-12

    ranks.barrier()
    (folder / f"passed-{me}").touch()


if __name__ == "__main__":
    dist.init_process_group("gloo")
    check(Path(sys.argv[1]))
    dist.barrier()
    os._exit(0)  # gloo's threads now and then abort an interpreter that winds down
