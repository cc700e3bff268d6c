"""Whether another library shares out an iterator's draws among the ranks once more."""

from __future__ import annotations

import sys
from types import FrameType

_SHARDERS = {  # classes that iterate what they shard
    "BatchSamplerShard": "accelerate's prepare",
    "DataLoaderDispatcher": "accelerate's prepare",
    "_DatasetSamplerWrapper": "Lightning's use_distributed_sampler",
}


def find_sharder() -> str | None:
    """Name of the setting by which the caller's draws are sharded; None where nobody does.

    Neither library asks or tells a sampler, so the functions that are waiting for the draw are looked at.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        sharder = _SHARDERS.get(frame.f_code.co_qualname.partition(".")[0])
        if sharder is not None:
            return sharder
        frame = frame.f_back
    return None
