"""Head to tail: candidates of a class begin from noised images of other classes, and keep some of what they vary in.

    x = sqrt(ᾱ_t) x_0 + sqrt(1 - ᾱ_t) ε,  t = strength · T,  and from there towards the class

As SDEdit noises an image to change it. Most images of other classes are of frequent ones, so it is they who lend.
Source: Meng et al., SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations, ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from generators.base import Job
from generators.plan import plan_jobs
from generators.source_images import hashed_images
from rebalance.data.table import Image, ImageTable
from rebalance.errors import InputError


def head_to_tail_jobs(
    fingerprint: str,
    table: ImageTable,
    budget: npt.ArrayLike,
    strengths: Sequence[float],
    *,
    reserve: float,
    seed: int,
    settings: Mapping[str, Any],
) -> tuple[list[list[Job]], dict[str, Image]]:
    """Jobs of each class in the order they are tried, and the images they begin from by their hash.

    Args:
        fingerprint: Of the generator.
        table: Real training images; of those of other classes each is as likely to be a source.
        budget: Wanted images of each class, (C,).
        strengths: How far sources are noised, above 0, at most 1; they take turns.
        reserve: Spare candidates per wanted image.
        seed: Root of all seeds.
        settings: What else shapes the images, the same for every job.

    Raises:
        InputError: No image of another class, or one that cannot be read.
    """
    plan = plan_jobs(fingerprint, table.classes, budget, reserve=reserve, seed=seed, settings=settings)
    sources: dict[str, Image] = {}
    names: dict[int, str] = {}
    for label, jobs in enumerate(plan):
        others = np.flatnonzero(table.targets != label)
        if jobs and not others.size:
            raise InputError(
                "images of other classes to begin from", f"{table.classes[label]} alone", "leave head to tail out"
            )
        for i, job in enumerate(jobs):
            row = int(others[job.seed % others.size])  # seeds are hashes, so as good as drawn
            if row not in names:
                named = hashed_images(table, np.array([row]))
                sources |= named
                (names[row],) = named
            own = {"strength": float(strengths[i % len(strengths)]), "source": names[row]}
            jobs[i] = replace(job, settings={**job.settings, **own})
    return plan, sources
