"""Endings of the files that are read: images, tables, lists."""

from __future__ import annotations

import os

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .jp2 .avif .tga".split()
)
TABLE_SUFFIXES = (".csv", ".tsv")
"""Of list files with named columns."""
LIST_SUFFIXES = (".txt", *TABLE_SUFFIXES)


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
