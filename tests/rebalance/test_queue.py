from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rebalance.errors import InputError
from rebalance.queue import FeatureQueue, all_gather_rows


def rows(first: int, n: int) -> tuple[Tensor, Tensor]:
    """Recognisable keys: row i is (i, -i), of class i mod 7."""
    ids = torch.arange(first, first + n)
    return torch.stack([ids, -ids], 1).float(), ids % 7


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 9), batches=st.lists(st.integers(0, 20), max_size=6))
def test_holds_the_last_rows_whatever_the_batch_sizes(size: int, batches: list[int]) -> None:
    queue, expected, first = FeatureQueue(size, 2), deque(maxlen=size), 0
    for n in batches:
        keys, targets = rows(first, n)
        queue.enqueue(keys, targets)
        expected.extend(range(first, first + n))
        first += n
        held, held_targets = queue()
        assert sorted(held[:, 0].tolist()) == list(expected)
        assert torch.equal(held_targets, held[:, 0].long() % 7)


def test_the_oldest_are_overwritten_first_in_their_place() -> None:
    queue = FeatureQueue(5, 2)
    queue.enqueue(*rows(0, 3))
    queue.enqueue(*rows(3, 3))
    assert queue()[0][:, 0].tolist() == [5, 1, 2, 3, 4]
    assert int(queue.pointer) == 1


def test_what_comes_out_does_not_change_when_more_goes_in() -> None:
    queue = FeatureQueue(4, 2)
    queue.enqueue(*rows(0, 4))
    keys, targets = queue()
    weight = torch.ones(2, requires_grad=True)
    loss = (keys @ weight).square().sum()
    queue.enqueue(*rows(10, 4))
    loss.backward()
    assert keys[:, 0].tolist() == [0, 1, 2, 3]
    assert targets.tolist() == [0, 1, 2, 3]


def test_keys_stay_float32_and_carry_no_gradient() -> None:
    queue = FeatureQueue(4, 2)
    keys, targets = rows(0, 2)
    queue.enqueue(keys.bfloat16().requires_grad_(), targets.int())
    held, held_targets = queue()
    assert held.dtype == torch.float32
    assert held_targets.dtype == torch.int64
    assert not held.requires_grad


def test_state_survives_saving_and_loading() -> None:
    queue = FeatureQueue(5, 2)
    queue.enqueue(*rows(0, 7))
    other = FeatureQueue(5, 2)
    other.load_state_dict(queue.state_dict())
    for each in (queue, other):
        each.enqueue(*rows(7, 2))
    assert torch.equal(other()[0], queue()[0])


def test_buffers_may_be_written_by_hand() -> None:
    queue = FeatureQueue(4, 2)
    keys, targets = rows(0, 4)
    queue.keys.copy_(keys)
    queue.targets.copy_(targets)
    for n in (4, 1):
        queue.filled.fill_(n)
        assert torch.equal(queue()[0], keys[:n])
    queue.filled = torch.tensor(2)
    assert torch.equal(queue()[1], targets[:2])
    queue.pointer.fill_(2)
    queue.enqueue(*rows(4, 1))
    assert torch.equal(queue()[0], torch.cat([keys[:2], rows(4, 1)[0]]))


def test_official_start_is_full_of_short_random_keys() -> None:
    keys, targets = FeatureQueue(1024, 32, init="official", n_classes=10)()
    assert keys.shape == (1024, 32)
    torch.testing.assert_close(keys.norm(dim=0), torch.ones(32))
    assert float(keys.norm(dim=1).mean()) == pytest.approx((32 / 1024) ** 0.5, rel=0.05)
    assert set(targets.tolist()) == set(range(10))


def test_starts_empty() -> None:
    keys, targets = FeatureQueue(8, 3)()
    assert keys.shape == (0, 3)
    assert targets.shape == (0,)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="expected a queue size >= 1; got 0"):
        FeatureQueue(0, 2)
    with pytest.raises(InputError, match="expected n_classes for init 'official'"):
        FeatureQueue(4, 2, init="official")
    with pytest.raises(InputError, match="got 'random'"):
        FeatureQueue(4, 2, init="random")
    with pytest.raises(InputError, match=r"expected keys \(B, 2\) and targets \(B,\); got \(3, 4\)"):
        FeatureQueue(4, 2).enqueue(torch.zeros(3, 4), torch.zeros(3))


def test_a_single_process_gathers_its_own_rows() -> None:
    keys, targets = rows(0, 3)
    gathered = all_gather_rows(keys, targets)
    assert gathered[0] is keys
    assert gathered[1] is targets


TWO_RANKS = """
import os, sys, torch, torch.distributed as dist
from rebalance.queue import FeatureQueue, all_gather_rows
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
queue = FeatureQueue(6, 2)
for first, sizes in ((0, (3, 1)), (10, (0, 2)), (20, (2, 2))):  # ragged, and one rank without a row
    begin = first + (sizes[0] if rank else 0)
    ids = torch.arange(begin, begin + sizes[rank])
    queue.enqueue(torch.stack([ids, -ids], 1).float(), ids % 7)
keys, targets = queue()
assert keys[:, 0].tolist() == [20, 21, 22, 23, 10, 11], keys
assert torch.equal(targets, keys[:, 0].long() % 7)
bools, = all_gather_rows(torch.arange(rank + 1).reshape(-1, 1, 1))
assert bools.flatten().tolist() == [0, 0, 1] and bools.shape == (3, 1, 1)
dist.barrier()
os._exit(0)  # gloo's threads now and then abort an interpreter that winds down
"""


def test_two_ranks_hold_the_same_rows_in_the_order_of_the_ranks(on_two_ranks: Callable[[str], None]) -> None:
    on_two_ranks(TWO_RANKS)


def test_print_shows_the_size_and_how_much_is_filled() -> None:
    queue = FeatureQueue(4, 2)
    queue.enqueue(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))
    assert repr(queue) == "FeatureQueue(4, 2, filled=3)"
