"""What every image generator can do: make the image of a job, and nothing else decides how it looks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Job:
    """One image to be made. Its bytes depend on this alone, on the same kind of device.

    Args:
        generator: Fingerprint of the generator.
        class_name: Name of the class.
        label: Its id.
        index: Number of the image within its class, from 0.
        seed: 32 bits, unique within the class.
        settings: Everything else that shapes the image, as plain values.
    """

    generator: str
    class_name: str
    label: int
    index: int
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """SHA-256 of everything that makes the image."""
        parts = [self.generator, self.class_name, self.label, self.index, self.seed, dict(self.settings)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


MOST_STEPS = 999
"""Sampling steps: with 1,000 schedulers visit a time step twice and divide by zero."""
NOT_FINITE, UNSAFE = "not finite", "safety checker"
"""Why an image was not made."""


class Generated(NamedTuple):
    """Images and why some are missing.

    Args:
        images: (N, 3, S, S) float32 in [0, 1] on the CPU; NaN where there is no image.
        failures: Of each image: nothing, `NOT_FINITE` or `UNSAFE`.
    """

    images: Tensor
    failures: list[str]


class ImageGenerator(Protocol):
    """Jobs → images."""

    @property
    def fingerprint(self) -> str:
        """Hash of the weights; part of every job's id."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a manifest should say of the generator: weights, precision, device, versions."""

    def batches(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """The jobs in groups that are best made together."""

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Do once what all of these jobs need."""

    def generate_checked(self, jobs: Sequence[Job]) -> Generated:
        """Images of the jobs, in their order, and why some are missing."""


def to_pixels(x: Tensor) -> Tensor:
    """-1 … 1 → 0 … 1, any shape; what is beyond is clipped, what is not finite becomes NaN."""
    return torch.where(x.isfinite(), (x / 2 + 0.5).clamp(0, 1), torch.nan)


def check_finite(images: Tensor) -> Generated:
    """Images (N, 3, S, S) and which of them failed; those have a pixel that is no number."""
    finite = torch.isfinite(images).flatten(1).all(dim=1).tolist()
    return Generated(images, ["" if good else NOT_FINITE for good in finite])


def group_jobs(jobs: Sequence[Job], kind: Callable[[Job], Any], batch_size: int) -> list[list[Job]]:
    """Batches of jobs of one kind, each in the order given; kinds in sorted order.

    Args:
        jobs: Of any kinds.
        kind: What the jobs of a batch have to share; of values that can be sorted.
        batch_size: Most jobs of a batch.
    """
    kinds: dict[Any, list[Job]] = {}
    for job in jobs:
        kinds.setdefault(kind(job), []).append(job)
    return [
        kinds[one][start : start + batch_size]
        for one in sorted(kinds)
        for start in range(0, len(kinds[one]), batch_size)
    ]
