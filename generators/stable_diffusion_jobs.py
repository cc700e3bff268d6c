"""What Stable Diffusion will make: one job per candidate image, from prompts, or from prompts and source images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from generators.base import Job
from generators.latent_sampling import Sampling
from generators.plan import image_seeds, n_candidates
from generators.prompts import Prompts
from generators.source_images import hashed_images
from rebalance.counts import IntArray
from rebalance.data.table import Image, ImageTable
from rebalance.errors import InputError

STRENGTHS = (0.4, 0.55, 0.7, 0.85)
"""Mixed, since one strength alone makes either near copies or images that have little of their source."""

MIN_SOURCES = 5


@dataclass(frozen=True)
class Sources:
    """Source images of each class.

    Args:
        own: Hashes of the class's own images, by class id.
        donors: Hashes of images of other, frequent classes, where its own are few.
        images: Hash → image; what the generator reads.
    """

    own: tuple[tuple[str, ...], ...]
    donors: tuple[tuple[str, ...], ...]
    images: Mapping[str, Image]


def find_sources(
    table: ImageTable, budget: npt.ArrayLike, *, min_sources: int = MIN_SOURCES, per_class: int = 1000, seed: int = 0
) -> Sources:
    """The source images of every class that is given images.

    Args:
        table: Real training images.
        budget: Wanted images of each class (C,); others need no sources.
        min_sources: A class of fewer images borrows up to so many from the classes that have the most.
        per_class: Most own images used, drawn at random.
        seed: Of the draws.

    Raises:
        InputError: A class without a source image.
    """
    counts, images = table.counts, {}
    own: list[tuple[str, ...]] = []
    donors: list[tuple[str, ...]] = []
    head = np.flatnonzero(counts >= max(np.median(counts), 1))
    for label, wanted in enumerate(np.asarray(budget).tolist()):
        rows: dict[str, IntArray] = {"own": np.zeros(0, np.int64), "donors": np.zeros(0, np.int64)}
        if wanted:
            stream = np.random.default_rng([seed, label])
            rows["own"] = stream.permutation(np.flatnonzero(table.targets == label))[:per_class]
            missing = max(0, min_sources - len(rows["own"]))
            if missing:
                lenders = np.flatnonzero(np.isin(table.targets, head[head != label]))
                rows["donors"] = stream.permutation(lenders)[:missing]
            if not len(rows["own"]) + len(rows["donors"]):
                raise InputError(
                    "source images for every class in mode image",
                    f"none for {table.classes[label]}",
                    "use mode text, or allow images of other classes (min_sources)",
                )
        named = {kind: hashed_images(table, part) for kind, part in rows.items()}
        own.append(tuple(named["own"]))
        donors.append(tuple(named["donors"]))
        images.update(named["own"] | named["donors"])
    return Sources(tuple(own), tuple(donors), images)


def text_jobs(
    fingerprint: str,
    classes: Sequence[str],
    budget: npt.ArrayLike,
    prompts: Prompts,
    sampling: Sampling,
    *,
    reserve: float,
    seed: int,
    adapter: str = "",
) -> list[list[Job]]:
    """Jobs of each class, from prompts alone, in the order they are tried.

    Args:
        fingerprint: Of the generator.
        classes: Class names, by id.
        budget: Wanted images of each class (C,).
        prompts: Of every class.
        sampling: Steps, guidance, scheduler; no strength.
        reserve: Spare candidates per wanted image.
        seed: Root of all seeds.
        adapter: Fingerprint of an adapter.

    Raises:
        InputError: A sampling with a strength, which needs source images.
    """
    if sampling.strength is not None:
        raise InputError("no strength without source images", str(sampling.strength), "leave it out, or use image_jobs")
    plan: list[list[Job]] = []
    for label, (name, wanted) in enumerate(zip(classes, np.asarray(budget).tolist(), strict=True)):
        seeds = image_seeds(seed, name, n_candidates(wanted, reserve), "text")
        plan.append(
            [
                Job(fingerprint, name, label, i, s, _settings("text", prompts, label, i, sampling, adapter))
                for i, s in enumerate(seeds)
            ]
        )
    return plan


def image_jobs(
    fingerprint: str,
    classes: Sequence[str],
    budget: npt.ArrayLike,
    prompts: Prompts,
    sampling: Sampling,
    sources: Sources,
    *,
    strengths: Sequence[float] = STRENGTHS,
    reserve: float,
    seed: int,
    adapter: str = "",
) -> list[list[Job]]:
    """Jobs of each class, from source images and prompts; sources and strengths take turns.

    Images of other classes start at the largest strength, so that little but their setting remains.

    Args:
        fingerprint: Of the generator.
        classes: Class names, by id.
        budget: Wanted images of each class (C,).
        prompts: Of every class.
        sampling: Steps, guidance, scheduler; its strength is replaced.
        sources: From `find_sources`, for this budget.
        strengths: How far sources are noised.
        reserve: Spare candidates per wanted image.
        seed: Root of all seeds.
        adapter: Fingerprint of an adapter.

    Raises:
        InputError: No strength, one out of range, or one so small that no step would be run.
    """
    if not strengths:
        raise InputError("at least one strength", "none", "use for example 0.4 0.55 0.7 0.85")
    samplings = [replace(sampling, strength=float(strength)) for strength in strengths]
    strongest = max(samplings, key=lambda one: one.strength or 0.0)
    plan: list[list[Job]] = []
    for label, (name, wanted) in enumerate(zip(classes, np.asarray(budget).tolist(), strict=True)):
        seeds = image_seeds(seed, name, n_candidates(wanted, reserve), "image")
        own = set(sources.own[label])
        pool = _shuffled([*sources.own[label], *sources.donors[label]], seed, name)
        jobs = []
        for i, one in enumerate(seeds):
            source = pool[i % len(pool)]
            turn = samplings[(i % len(pool) + i // len(pool)) % len(samplings)] if source in own else strongest
            settings = _settings("image", prompts, label, i, turn, adapter) | {
                "strength": turn.strength,
                "source": source,
                "donor": source not in own,
            }
            jobs.append(Job(fingerprint, name, label, i, one, settings))
        plan.append(jobs)
    return plan


def _settings(mode: str, prompts: Prompts, label: int, index: int, sampling: Sampling, adapter: str) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "mode": mode,
        "prompt": prompts(label, index),
        "negative": prompts.negative,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "scheduler": sampling.scheduler,
    }
    return settings | {"adapter": adapter} if adapter else settings


def _shuffled(items: list[str], seed: int, class_name: str) -> list[str]:
    def key(item: str) -> bytes:
        return hashlib.sha256(json.dumps([seed, class_name, item], ensure_ascii=False).encode()).digest()

    return sorted(dict.fromkeys(items), key=key)
