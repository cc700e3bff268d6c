"""Images that a class has more than once: the same file under two names, the same pixels."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from rebalance.counts import IntArray
from rebalance.data.table import Image, ImageTable, content_hash


def first_copies(table: ImageTable) -> IntArray:
    """For each row the first row of its class with the same image, (N,): itself where there is no other.

    Images are compared by the bytes of their files, which are read only where two of a class are equally long, or by
    their pixels. A file that cannot be read is like no other.
    """
    alike: dict[tuple[int, object], list[int]] = defaultdict(list)
    for row, (target, image) in enumerate(zip(table.targets.tolist(), table.images, strict=True)):
        alike[target, _extent(image)].append(row)
    first = np.arange(len(table), dtype=np.int64)
    for rows in alike.values():
        if len(rows) > 1:
            seen: dict[bytes, int] = {}
            for row in rows:
                content = _content(table.images[row])
                first[row] = row if content is None else seen.setdefault(content, row)
    return first


def _extent(image: Image) -> object:
    """What costs no reading, and is the same for the same images."""
    if not isinstance(image, str):
        return image.shape
    try:
        return Path(image).stat().st_size
    except OSError:
        return -1


def _content(image: Image) -> bytes | None:
    try:
        return content_hash(image)
    except OSError:
        return None
