"""Endings of the files that are read: images, tables, lists."""

from __future__ import annotations

import os

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .jp2 .avif .tga".split()
)
HEIC_SUFFIXES = (".heic", ".heif")
"""Of what telephones save, and Pillow does not read."""
TABLE_SUFFIXES = (".csv", ".tsv")
"""Of list files with named columns."""
LIST_SUFFIXES = (".txt", *TABLE_SUFFIXES)
ABOUT_IMAGES = (*LIST_SUFFIXES, ".json", ".xml", ".yaml", ".yml", ".md", ".db", ".ini")
"""Of files that often lie beside images and are none."""


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
