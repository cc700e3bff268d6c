"""Whether an epoch is the count that another library's loader keeps of its own iterations."""

from __future__ import annotations

import sys
from types import FrameType

_COUNTERS = (  # accelerate's, and Lightning Fabric's
    "DataLoaderShard.__iter__",
    "DataLoaderDispatcher.__iter__",
    "_FabricDataLoader.__iter__",
)
_FORWARDERS = ("set_epoch", "_set_sampler_epoch")


def is_loader_count() -> bool:
    """Whether the caller, a `set_epoch`, was reached from a loader that begins to iterate.

    Such a loader names 0, 1, … at its own iterations, in the same way in which a loop names an epoch; only the
    functions that are waiting tell the two apart.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name in _FORWARDERS:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_qualname in _COUNTERS
