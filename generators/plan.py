"""What will be made: one job per candidate image, from budget and seed alone."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from generators.base import Job


def plan_jobs(
    fingerprint: str,
    classes: Sequence[str],
    budget: npt.ArrayLike,
    *,
    reserve: float,
    seed: int,
    settings: Mapping[str, Any],
) -> list[list[Job]]:
    """Jobs of each class in the order they are tried: the wanted images, then the spare ones.

    Args:
        fingerprint: Of the generator.
        classes: Class names, by id.
        budget: Wanted images of each class, (C,).
        reserve: Spare candidates per wanted image.
        seed: Root of all seeds.
        settings: What else shapes the images, the same for every job.
    """
    wanted = np.asarray(budget, dtype=np.int64).tolist()
    plan: list[list[Job]] = []
    for label, (name, n) in enumerate(zip(classes, wanted, strict=True)):
        seeds = image_seeds(seed, name, n_candidates(n, reserve))
        plan.append([Job(fingerprint, name, label, i, s, settings) for i, s in enumerate(seeds)])
    return plan


def n_candidates(wanted: int, reserve: float) -> int:
    """Candidates planned for `wanted` images."""
    return wanted + math.ceil(reserve * wanted)


def image_seeds(root: int, class_name: str, n: int, mode: str = "") -> list[int]:
    """`n` different 32-bit seeds: torch's CPU generators ignore all higher bits, so wider ones would collide unseen.

    Args:
        root: Seed of the whole plan.
        class_name: Whose images; seeds of one class do not depend on the others.
        n: How many; the first are the same for every `n`.
        mode: Tells plans of one class and root apart.
    """
    seeds: dict[int, None] = {}
    number = 0
    while len(seeds) < n:
        text = json.dumps([root, class_name, mode, number], ensure_ascii=False)
        seeds.setdefault(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big"))
        number += 1
    return list(seeds)
