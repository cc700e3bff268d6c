from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rebalance import ranks
from rebalance.errors import InputError

# One process


def test_one_process_is_the_main_one_and_keeps_what_it_has() -> None:
    assert (ranks.rank(), ranks.world_size(), ranks.is_main()) == (0, 1, True)
    assert ranks.broadcast("a") == "a"
    assert ranks.gather("a") == ["a"]
    assert ranks.shard(np.arange(5)).tolist() == list(range(5))
    total = torch.tensor([1.0])
    ranks.sum_over_ranks([total])
    assert total.tolist() == [1.0]
    ranks.broadcast_state(nn.Linear(1, 1))
    ranks.barrier()


@settings(deadline=None)
@given(st.integers(0, 3000), st.integers(1, 300), st.integers(1, 8))
def test_batches_cover_every_row_once_and_give_each_rank_two_rows(n_rows: int, batch_size: int, world: int) -> None:
    batch_size = max(batch_size, 2 * world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "world_size", lambda: world)
        bounds = ranks.split_batches(n_rows, batch_size)
    assert [row for begin, end in bounds for row in range(begin, end)] == list(range(n_rows))
    sizes = [end - begin for begin, end in bounds]
    assert all(size == batch_size for size in sizes[:-1])
    if n_rows >= 2 * world:
        assert all(size >= 2 * world for size in sizes)
        assert sizes[-1] < batch_size + 2 * world
    else:
        assert len(bounds) == (n_rows > 0)


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (8, 4, [4, 4]), (3, 4, [3]), (1, 4, [1]), (0, 4, [])],
)
def test_a_single_row_joins_the_batch_before(n_rows: int, batch_size: int, sizes: list[int]) -> None:
    assert [end - begin for begin, end in ranks.split_batches(n_rows, batch_size)] == sizes


# Seeds


@settings(deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 10**6))
def test_derived_seeds_have_32_bits_and_are_functions_of_their_parts(seed: int, update: int) -> None:
    derived = ranks.derive_seed(seed, update)
    assert 0 <= derived < 2**32
    assert derived == ranks.derive_seed(seed, update)


def test_neighbouring_parts_give_other_seeds() -> None:
    seeds = {ranks.derive_seed(seed, update, rank) for seed in range(5) for update in range(200) for rank in (1, 2)}
    assert len(seeds) == 2000


def test_seeding_sets_torchs_stream() -> None:
    state = torch.get_rng_state()
    try:
        ranks.seed_everything(3, 4)
        first = torch.rand(3)
        torch.rand(7)
        ranks.seed_everything(3, 4)
        assert torch.equal(first, torch.rand(3))
    finally:
        torch.set_rng_state(state)


def test_on_a_cpu_the_stream_is_that_of_torchs_own_seeding() -> None:
    state = torch.get_rng_state()
    try:
        ranks.seed_everything(3, 4)
        seeded = torch.get_rng_state()
        torch.manual_seed(ranks.derive_seed(3, 4))
        assert torch.equal(seeded, torch.get_rng_state())
    finally:
        torch.set_rng_state(state)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="a seed >= 0; got -1"):
        ranks.derive_seed(-1, 5)


# Two processes


def test_two_ranks_share_what_they_must(tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_ranks.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, str(script), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(os.listdir(tmp_path)) == ["passed-0", "passed-1"]


CHILD = """
import time
from rebalance.ranks import end_with_parent
end_with_parent(0.05)
print("ready", flush=True)
time.sleep(0.3)
print("still here", flush=True)
time.sleep(60)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def test_a_process_ends_when_its_launcher_is_killed_and_not_before() -> None:
    launcher = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    with launcher.stdout as output:
        assert output.readline() == "ready\n"
        assert output.readline() == "still here\n"
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        readable, _, _ = select.select([output], [], [], 10)
        assert readable  # the child held the other end of the pipe, and has gone
        assert output.read() == ""
