from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import RandomSampler, WeightedRandomSampler

from rebalance.errors import InputError
from rebalance.samplers import ClassBatchSampler, DistributedEpochSampler, EpochSampler, MixedSourceSampler
from rebalance.samplers.base import SeededSampler

LABELS = np.random.default_rng(0).choice(6, 961, p=[0.5, 0.25, 0.15, 0.06, 0.03, 0.01])
RANKS = Path(__file__).with_name("ranks.py")


def parts(sampler: Any, world: int, **options: Any) -> list[list[Any]]:
    return [list(DistributedEpochSampler(sampler, num_replicas=world, rank=rank, **options)) for rank in range(world)]


def interleaved(shards: list[list[int]]) -> list[int]:
    return [row for rows in itertools.zip_longest(*shards) for row in rows if row is not None]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(8, 300), world=st.integers(1, 8), batch_size=st.integers(1, 20), epoch=st.integers(0, 5))
def test_batches_of_all_ranks_are_the_epoch_in_the_same_number_of_steps(
    n: int, world: int, batch_size: int, epoch: int
) -> None:
    sampler = EpochSampler(np.arange(n) % 3)
    sampler.set_epoch(epoch)
    ranks = parts(sampler, world, batch_size=batch_size)
    assert {len(rank) for rank in ranks} == {
        len(DistributedEpochSampler(sampler, num_replicas=world, rank=0, batch_size=batch_size))
    }
    order = [row for step in zip(*ranks, strict=True) for row in interleaved(list(step))]
    assert order == list(sampler)
    sizes = [len(batch) for rank in ranks for batch in rank]
    assert min(sizes) >= 1
    assert max(sizes) <= batch_size + 1


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_rows_of_all_ranks_are_the_epoch(world: int) -> None:
    sampler = EpochSampler(LABELS, rule="inverse")
    ranks = parts(sampler, world)
    assert interleaved(ranks) == list(sampler)
    for rank, rows in enumerate(ranks):
        assert len(rows) == len(DistributedEpochSampler(sampler, num_replicas=world, rank=rank))
        assert len(rows) in (961 // world, 961 // world + 1)


@pytest.mark.parametrize("world", [2, 4])
def test_drop_last_gives_every_rank_the_same(world: int) -> None:
    sampler = EpochSampler(LABELS)
    ranks = parts(sampler, world, drop_last=True)
    assert [len(rows) for rows in ranks] == [961 // world] * world
    assert interleaved(ranks) == list(sampler)[: 961 - 961 % world]
    batches = parts(sampler, world, drop_last=True, batch_size=16)
    assert {len(batch) for rank in batches for batch in rank} == {16}
    assert {len(rank) for rank in batches} == {961 // (16 * world)}


def test_a_resume_under_more_ranks_gives_none_of_them_an_empty_batch() -> None:
    labels = [0, 1, 2] * 3
    alone = DistributedEpochSampler(labels, num_replicas=1, rank=0, batch_size=8)
    alone.consumed(8)
    batches = []
    for rank in range(2):
        resumed = DistributedEpochSampler(labels, num_replicas=2, rank=rank, batch_size=4)
        resumed.load_state_dict(alone.state_dict())
        batches.append(list(resumed))
    assert batches == [[], []]  # one row cannot be shared by two


@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("after", [1, 2, 4])
def test_resume_under_another_number_of_ranks_yields_the_rest(before: int, after: int) -> None:
    whole = DistributedEpochSampler(
        LABELS, rule="inverse", seed=3, num_replicas=before, rank=0, batch_size=16 // before
    )
    whole.set_epoch(2)
    order = list(whole.sampler)
    whole.consumed(160)
    shards = []
    for rank in range(after):
        resumed = DistributedEpochSampler(LABELS, rule="inverse", num_replicas=after, rank=rank)
        resumed.load_state_dict(whole.state_dict())
        assert resumed.epoch == 2
        shards.append(list(resumed))
    assert interleaved(shards) == order[160:]


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_every_batch_of_a_batch_sampler(world: int) -> None:
    sampler = ClassBatchSampler(LABELS, 4, 3)
    ranks = parts(sampler, world)
    for step, batch in zip(zip(*ranks, strict=True), sampler, strict=True):
        assert sorted(row for part in step for row in part) == sorted(batch)
        for part in step:
            assert np.bincount(LABELS[part]).max() == 3  # classes stay whole
    mixed = MixedSourceSampler(
        EpochSampler(LABELS), EpochSampler(LABELS[:99]), batch_size=16, real_share=0.5, drop_last=True
    )
    for step in zip(*parts(mixed, world), strict=True):
        assert {sum(row < 961 for row in part) for part in step} == {8 // world}


def test_epochs_differ_and_reach_the_inner_sampler() -> None:
    sampler = EpochSampler(LABELS)
    shard = DistributedEpochSampler(sampler, num_replicas=2, rank=1)
    first = list(shard)
    shard.set_epoch(1)
    assert (sampler.epoch, shard.epoch) == (1, 1)
    assert list(shard) != first


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_epoch_of_a_torch_sampler(world: int) -> None:
    theirs = WeightedRandomSampler([1.0] * 100, 100)
    for epoch in (0, 1):
        shards = []
        for rank in range(world):
            torch.manual_seed(rank)  # as scripts do for augmentation
            shard = DistributedEpochSampler(theirs, num_replicas=world, rank=rank, batch_size=10, seed=5)
            shard.set_epoch(epoch)
            shards.append(list(shard))
        whole = DistributedEpochSampler(theirs, num_replicas=1, rank=0, seed=5)
        whole.set_epoch(epoch)
        assert [row for step in zip(*shards, strict=True) for row in interleaved(list(step))] == list(whole)


class Own(SeededSampler[Any]):
    """A sampler of a user, which draws what a function returns."""

    def __init__(self, draw: Any, num_samples: int = 7) -> None:
        self.draw, self.num_samples, self.seed = draw, num_samples, 0

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Any:
        self.begin()
        return iter(self.draw(self))


class OwnChunks(Own):
    def chunks(self) -> Any:
        yield from np.array_split(np.array(self.draw(self)), 2)

    def __iter__(self) -> Any:
        raise AssertionError("rows were taken one after the other")


@pytest.mark.parametrize("kind", [Own, OwnChunks])
def test_ranks_share_the_epoch_of_a_sampler_of_the_user(kind: type[Own], caplog: pytest.LogCaptureFixture) -> None:
    sampler = kind(lambda its: range(its.epoch + its._consumed, its.epoch + 7))
    sampler.set_epoch(30)
    assert parts(sampler, 2) == [[30, 32, 34, 36], [31, 33, 35]]
    assert parts(sampler, 2, batch_size=2) == [[[30, 32], [34, 36]], [[31, 33], [35]]]
    sampler.consumed(3)
    assert parts(sampler, 2) == [[33, 35], [34, 36]]
    untold = kind(lambda its: range(7))
    parts(untold, 2)
    assert caplog.text == ""
    parts(untold, 2)
    assert caplog.text.count("was iterated 3 times without set_epoch") == 1


@pytest.mark.parametrize("kind", [Own, OwnChunks])
@pytest.mark.parametrize(
    ("draw", "consumed", "message"),
    [
        (lambda its: range(5), 0, "expected the 7 rows that are left of an epoch of Own.*; got 5; draw num_samples"),
        (lambda its: range(8), 0, "expected the 7 rows that are left of an epoch of Own.*; got more"),
        (lambda its: range(7), 3, "expected the 4 rows .*; got more; .* leave out those consumed"),
    ],
)
def test_a_sampler_of_the_user_that_draws_other_than_it_says_is_refused(
    kind: type[Own], draw: Any, consumed: int, message: str
) -> None:
    sampler = kind(draw)
    sampler.consumed(consumed)
    with pytest.raises(InputError, match=message):
        parts(sampler, 2)


def test_a_sampler_of_the_user_that_draws_batches_must_say_so() -> None:
    with pytest.raises(InputError, match="a sampler of rows; got Own, of something else; derive it from BatchSampler"):
        parts(Own(lambda its: [[0, 1]] * 7), 2)


def test_ranks_come_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (DistributedEpochSampler([0, 1]).num_replicas, DistributedEpochSampler([0, 1]).rank) == (1, 0)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    shard = DistributedEpochSampler([0, 1, 2, 3])
    assert (shard.num_replicas, shard.rank, len(shard)) == (3, 2, 1)


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        ([0, 1], {"num_replicas": 2, "rank": 2}, "expected a rank below 2; got 2"),
        ([0, 1], {"num_replicas": 2, "rank": -1}, "rank as a whole number of at least 0"),
        ([0, 1], {"num_replicas": 0}, "num_replicas as a whole number of at least 1"),
        ([0, 1], {"batch_size": 0}, "batch_size as a whole number of at least 1"),
        ([0, 1], {"num_replicas": 3, "rank": 0}, "at least one row for each of 3 ranks; got an epoch of 2"),
        ([0, 1, 1], {"num_replicas": 2, "rank": 0, "batch_size": 2, "drop_last": True}, "at least one row for each"),
        (EpochSampler([0, 1]), {"rule": "inverse"}, "expected options beside labels only; got rule"),
        (EpochSampler([0, 1]), {"seed": 1}, "expected options beside labels only; got seed"),
        (RandomSampler([0, 1]), {"rule": "inverse"}, "expected options beside labels only; got rule"),
        (DistributedEpochSampler([0, 1], num_replicas=2, rank=0), {}, "expected a sampler of one process"),
        ([0, 1], {"num_replicas": 2}, "expected a rank out of 2; got none, and no RANK; pass rank="),
        (ClassBatchSampler([0, 1], 1, 1), {"num_replicas": 2, "rank": 0}, "got a batch of 1"),
        (ClassBatchSampler([0, 1], 1, 1), {"batch_size": 2}, "got ClassBatchSampler, which yields batches"),
    ],
)
def test_bad_arguments_are_refused(sampler: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DistributedEpochSampler(sampler, **options)


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_real_ranks_draw_every_row_once_and_resume(world: int, tmp_path: Path) -> None:
    """A DDP loop and an accelerate loop under torchrun, killed in the middle of epoch 1 and started again."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(world)]
    for _ in range(2):
        done = subprocess.run(
            [*launch, str(RANKS), str(tmp_path)], capture_output=True, text=True, check=False, timeout=500
        )
        assert done.returncode == 0, done.stderr[-3000:]
    for loop in ("ddp", "accelerate", "accelerate-classes", "accelerate-mixed", "accelerate-untold"):
        logs = [json.loads((tmp_path / f"{loop}-{rank}.json").read_text()) for rank in range(world)]
        weights = [log["weight"] for log in logs]
        assert all(weight == weights[0] for weight in weights)
        assert all(log["starts"] == 2 for log in logs)
        for epoch in range(3):
            drawn = [log["rows"][str(epoch)] for log in logs]
            if loop == "ddp":
                order = EpochSampler([row % 5 for row in range(480)], rule="inverse", seed=7).epoch_order(epoch)
                assert sorted(row for rows in drawn for row in rows) == sorted(order.tolist())
            else:  # accelerate deals out whole batches
                batches = epoch_batches(loop, epoch, 40 // world)
                assert drawn == [[row for batch in batches[rank::world] for row in batch] for rank in range(world)]


def epoch_batches(loop: str, epoch: int, batch_size: int) -> list[list[int]]:
    """The batches of one process of a loop in ranks.py."""
    labels = [row % 5 for row in range(480)]
    if loop == "accelerate":
        order = EpochSampler(labels, rule="inverse", seed=7).epoch_order(epoch)
        return order.reshape(-1, batch_size).tolist()  # type: ignore[no-any-return]
    real, synthetic = EpochSampler(labels[:300], seed=7), EpochSampler(labels[300:], seed=8)
    sampler: Any = (
        ClassBatchSampler(labels, 5, batch_size // 5, seed=7)
        if loop in ("accelerate-classes", "accelerate-untold")
        else MixedSourceSampler(real, synthetic, batch_size=batch_size, real_share=0.5, num_samples=480)
    )
    sampler.set_epoch(epoch)
    return list(sampler)
