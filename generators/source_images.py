"""Images that a generator begins from instead of from noise alone, each named by the hash of its content."""

from __future__ import annotations

from collections.abc import Mapping

from rebalance.counts import IntArray
from rebalance.data.decoding import decode
from rebalance.data.table import ByteArray, Image, ImageTable, content_hash
from rebalance.errors import InputError, RunError


def steps_of(steps: int, strength: float) -> int:
    """Of the sampling steps those that a source image which is noised so far is denoised by."""
    return min(int(steps * strength), steps)


def hashed_images(table: ImageTable, rows: IntArray) -> dict[str, Image]:
    """Hash → image of rows (N,) of a table.

    Raises:
        InputError: An image that cannot be read.
    """
    named = {}
    for row in rows.tolist():
        try:
            named[content_hash(table.images[row]).hex()] = table.images[row]
        except OSError as error:
            raise InputError("source images that can be read", f"{table.name(row)}: {error}", "restore it") from error
    return named


def read_source(sources: Mapping[str, Image], name: str, size: int | None) -> ByteArray:
    """RGB pixels (S, S, 3) of the source image of this hash.

    Args:
        sources: Hash → image.
        name: The hash.
        size: Height and width, px; None keeps the image as it is.

    Raises:
        InputError: No such source, or an image that was changed since it was named.
        RunError: An image that cannot be read.
    """
    if name not in sources:
        raise InputError("the source image of every job", f"none for {name}", "hand in all sources of the plan")
    image = sources[name]
    try:
        if content_hash(image).hex() != name:
            raise InputError("source images as they were planned", f"{image} was changed", "plan again")
        return decode(image, size)
    except OSError as error:
        raise RunError(f"cannot read the source image {image}: {error}") from error
