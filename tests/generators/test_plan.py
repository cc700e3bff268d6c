from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.base import Job
from generators.plan import image_seeds, n_candidates, plan_jobs

CLASSES = ("two words", "猫", "a/b")
SETTINGS: Mapping[str, Any] = {"steps": 20, "guidance": 2.0}


def plan(budget: list[int], fingerprint: str = "f", seed: int = 0, reserve: float = 0.7) -> list[list[Job]]:
    return plan_jobs(fingerprint, CLASSES, budget, reserve=reserve, seed=seed, settings=SETTINGS)


def test_every_class_gets_its_budget_and_a_reserve() -> None:
    jobs = plan([10, 0, 3])
    assert [len(part) for part in jobs] == [17, 0, 6]
    for label, part in enumerate(jobs):
        assert [job.index for job in part] == list(range(len(part)))
        assert {(job.label, job.class_name) for job in part} <= {(label, CLASSES[label])}


@pytest.mark.parametrize(("wanted", "reserve", "planned"), [(10, 0, 10), (10, 0.7, 17), (1, 0.01, 2), (0, 5, 0)])
def test_reserves_are_rounded_up(wanted: int, reserve: float, planned: int) -> None:
    assert n_candidates(wanted, reserve) == planned


def test_plans_are_equal_for_equal_arguments_and_share_nothing_otherwise() -> None:
    ids = [job.id for part in plan([10, 5, 3]) for job in part]
    assert [job.id for part in plan([10, 5, 3]) for job in part] == ids
    assert len(set(ids)) == len(ids)
    for other in (plan([10, 5, 3], seed=1), plan([10, 5, 3], fingerprint="g")):
        assert not set(ids) & {job.id for part in other for job in part}


def test_a_larger_budget_keeps_the_jobs_of_the_smaller() -> None:
    small, large = plan([3, 1, 2]), plan([30, 20, 10], reserve=2)
    for few, many in zip(small, large, strict=True):
        assert [job.id for job in many[: len(few)]] == [job.id for job in few]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.text(min_size=1, max_size=8), st.integers(0, 30), st.integers(0, 30))
def test_seeds_are_different_32_bit_numbers_and_more_of_them_keep_the_first(
    root: int, name: str, few: int, more: int
) -> None:
    seeds = image_seeds(root, name, few + more)
    assert len(set(seeds)) == len(seeds) == few + more
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert image_seeds(root, name, few) == seeds[:few]


def test_so_many_seeds_that_some_would_collide_are_still_different() -> None:
    seeds = image_seeds(7, "class", 60_000)  # the first 60,000 hashes of this root hold two pairs of equal ones
    assert len(set(seeds)) == 60_000


def test_seeds_depend_on_root_class_and_mode() -> None:
    first = image_seeds(0, "cat", 20)
    for other in (image_seeds(1, "cat", 20), image_seeds(0, "dog", 20), image_seeds(0, "cat", 20, "image")):
        assert not set(first) & set(other)


def test_different_seeds_give_different_noise() -> None:
    noise = {
        tuple(torch.randn(4, generator=torch.Generator().manual_seed(s)).tolist()) for s in image_seeds(0, "a", 50)
    }
    assert len(noise) == 50


def test_the_id_depends_on_everything_that_makes_the_image() -> None:
    job = plan([1, 0, 0])[0][0]
    others = [
        replace(job, generator="g"),
        replace(job, class_name="b"),
        replace(job, label=1),
        replace(job, index=1),
        replace(job, seed=job.seed ^ 1),
        replace(job, settings={**SETTINGS, "steps": 21}),
        replace(job, settings={**SETTINGS, "more": None}),
    ]
    assert len({job.id, *(other.id for other in others)}) == 8
    assert replace(job, settings=dict(reversed(SETTINGS.items()))).id == job.id
    assert len(job.id) == 64
