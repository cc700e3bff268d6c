"""What every image generator can do: make the image of a job, and nothing else decides how it looks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

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


class ImageGenerator(Protocol):
    """Jobs → images."""

    @property
    def fingerprint(self) -> str:
        """Hash of the weights; part of every job's id."""

    def generate(self, jobs: Sequence[Job]) -> Tensor:
        """Images (N, 3, S, S) float32 in [0, 1] on the CPU, in the order of the jobs; NaN where sampling failed."""
