"""How many processes or threads read images, unless told."""

from __future__ import annotations

import os

_MOST = 8
"""More wait for the disk, and each holds a copy of the list of images."""


def usual_workers() -> int:
    """One for each CPU that this process may use, shared with the other ranks of the machine; 1 to 8."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST, cpus // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
