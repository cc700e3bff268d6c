"""Permutations, quotas, members and arrangements: the arithmetic under every sampler."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from rebalance.draws import Draws, Members, arrangement, check_draws, grouped, mixed_shares, quotas
from rebalance.errors import InputError
from rebalance.permutations import SMALL, cycle_keys, permuted


def permutation(n: int, name: int) -> np.ndarray:
    return permuted(np.arange(n, dtype=np.uint32), np.array([n], np.uint32), np.array([name], np.uint32), np.array([n]))


@pytest.mark.parametrize("n", [1, 2, 3, 5, SMALL, SMALL + 1, 100, 255, 256, 257, 4097, 70_001])
@pytest.mark.parametrize("name", [0, 1, 2**32 - 1])
def test_every_entry_comes_once(n: int, name: int) -> None:
    np.testing.assert_array_equal(np.sort(permutation(n, name)), np.arange(n))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_every_order_of_a_small_class_is_equally_likely(n: int) -> None:
    draws = 50_000
    names = cycle_keys(np.full(draws, 5, np.uint32), np.arange(draws, dtype=np.uint32))
    sizes, lengths = np.full(draws, n, np.uint32), np.full(draws, n)
    orders = permuted(np.tile(np.arange(n, dtype=np.uint32), draws), sizes, names, lengths).reshape(draws, n)
    seen, times = np.unique(orders @ n ** np.arange(n), return_counts=True)
    assert seen.size == math.factorial(n)
    assert chisquare(times).pvalue > 0.001


@pytest.mark.parametrize("n", [60, SMALL, SMALL + 1, 300, 1000])
def test_the_first_two_entries_are_near_uniform_pairs(n: int) -> None:
    draws = 400_000
    names = cycle_keys(np.full(draws, 9, np.uint32), np.arange(draws, dtype=np.uint32))
    sizes, lengths = np.full(draws, n, np.uint32), np.full(draws, 2)
    pairs = permuted(np.tile(np.arange(2, dtype=np.uint32), draws), sizes, names, lengths).reshape(draws, 2).astype(int)
    assert chisquare(np.bincount(pairs[:, 0], minlength=n)).pvalue > 0.001
    times = np.bincount(np.diff(pairs)[:, 0] % n, minlength=n)[1:]  # distance of the two
    assert times.std() / times.mean() < 0.03 + 1.1 * math.sqrt(n / draws)


@given(
    counts=st.lists(st.just(0.0) | st.floats(0.1, 40.0), min_size=1, max_size=30).filter(any),
    total=st.integers(1, 500),
    offset=st.floats(0.0, 1.0, exclude_max=True),
)
def test_quotas_round_each_class_down_or_up_and_keep_the_sum(counts: list[float], total: int, offset: float) -> None:
    share = np.array(counts)
    expected = share / share.sum() * total
    quota = quotas(expected, offset)
    assert quota.sum() == total
    assert (quota >= np.floor(expected - 1e-6)).all()
    assert (quota <= np.ceil(expected + 1e-6)).all()
    assert not quota[share == 0].any()


def test_quotas_are_on_average_what_is_expected() -> None:
    expected = np.array([0.2, 1.7, 0.05, 3.05])
    offsets = (np.arange(2000) + 0.5) / 2000
    np.testing.assert_allclose(np.mean([quotas(expected, u) for u in offsets], axis=0), expected, atol=1e-3)


def test_whole_expectations_are_kept_through_rounding_noise() -> None:
    counts = np.array([3, 7, 11, 5000])
    np.testing.assert_array_equal(quotas(counts / counts.sum() * counts.sum(), 0.999), counts)


def test_mixed_shares_go_from_plain_to_rule() -> None:
    np.testing.assert_allclose(mixed_shares([3, 1], [0.5, 0.5], 0.0), [0.75, 0.25])
    np.testing.assert_allclose(mixed_shares([3, 1], [0.5, 0.5], 1.0), [0.5, 0.5])
    np.testing.assert_allclose(mixed_shares([3, 1], [0.5, 0.5], 0.5), [0.625, 0.375])


@pytest.mark.parametrize("n_classes", [1, 3, 1000, 100_000])
def test_grouped_is_a_stable_argsort(n_classes: int) -> None:
    ids = np.random.default_rng(0).integers(0, n_classes, 5000)
    np.testing.assert_array_equal(grouped(ids, n_classes), np.argsort(ids, kind="stable"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_members_list_the_rows_of_each_class_across_blocks(dtype: type) -> None:
    ids = np.random.default_rng(1).integers(0, 5, 200_000).astype(dtype)
    members = Members.of(ids, 6)
    for c in range(6):
        rows = members.rows[members.starts[c] : members.starts[c] + members.counts[c]]
        np.testing.assert_array_equal(rows, np.flatnonzero(ids == c))


@pytest.mark.parametrize("absent", [0, 5000])  # few classes and many take words of 32 and of 64 bits
def test_arrangements_are_uniform(absent: int) -> None:
    here = np.array([2, 1, *[0] * absent, 1])  # 4! / 2! = 12 arrangements
    stream = np.random.Generator(np.random.PCG64(3))
    seen: dict[tuple[int, ...], int] = {}
    for _ in range(12_000):
        places = tuple(arrangement(stream, here).tolist())
        assert places[0] < places[1]
        seen[places] = seen.get(places, 0) + 1
    assert len(seen) == 12
    assert chisquare(list(seen.values())).pvalue > 0.001


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_member_twice_before_all_once(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 200), min_size=1, max_size=8))
    quota = np.array(data.draw(st.lists(st.integers(0, 900), min_size=len(counts), max_size=len(counts))))
    ids = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    draws = Draws(Members.of(ids, len(counts)), quota, (data.draw(st.integers(0, 2**40)), 1))
    order = np.concatenate([np.empty(0, np.int64), *draws.chunks()])
    np.testing.assert_array_equal(np.bincount(ids[order], minlength=len(counts)), quota)
    for c, n in enumerate(counts):
        rows = order[ids[order] == c]
        for begin in range(0, rows.size, n):
            cycle = rows[begin : begin + n]
            assert np.unique(cycle).size == cycle.size


def test_what_follows_a_class_does_not_depend_on_it() -> None:
    here = np.array([21_845, 21_845, 21_846])
    stream = np.random.Generator(np.random.PCG64(3))
    followed = np.zeros((3, 3))
    for _ in range(20):
        order = np.empty(65_536, int)
        order[arrangement(stream, here)] = np.repeat(np.arange(3), here)
        np.add.at(followed, (order[:-1], order[1:]), 1)
    assert chisquare(followed.ravel()).pvalue > 0.001


def test_chunks_from_the_middle_are_the_rest_of_the_epoch() -> None:
    ids = np.arange(300) % 7
    draws = Draws(Members.of(ids, 7), np.arange(7) * 10_000, (1, 2))
    order = np.concatenate(list(draws.chunks()))
    for start in (1, 131_071, 131_072, 131_073, order.size - 1):
        np.testing.assert_array_equal(np.concatenate(list(draws.chunks(start))), order[start:])
    assert list(draws.chunks(order.size)) == []


@pytest.mark.parametrize("n", [0, -1, 1.5, True, 10**9])
def test_draws_out_of_range_are_refused(n: float) -> None:
    with pytest.raises(InputError, match="num_samples as a whole number from 1 to 999999999"):
        check_draws(n, "num_samples")  # type: ignore[arg-type]
