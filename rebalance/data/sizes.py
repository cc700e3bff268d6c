"""Sizes and formats of images; of files only the headers are read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from PIL import ExifTags
from PIL import Image as Pillow

from rebalance.data.table import Image, ImageTable

Size = tuple[int, int]
"""Width and height, px."""
_ON_THEIR_SIDE = (5, 6, 7, 8)


@dataclass(frozen=True)
class ImageSizes:
    """The sizes of some images, as they are seen: turned as EXIF says.

    Args:
        smallest: The one of the fewest pixels.
        most_common: The one that most images have.
        n_most_common: How many these are.
        largest: The one of the most pixels.
        formats: Files of each format, by Pillow's name; none of images in memory.
    """

    smallest: Size
    most_common: Size
    n_most_common: int
    largest: Size
    formats: dict[str, int]

    def __str__(self) -> str:
        formats = ", ".join(f"{n} {name}" for name, n in self.formats.items())
        behind = f"; {formats}" if formats else ""
        if self.smallest == self.largest:
            return f"all {_words(self.largest)} px{behind}"
        usual = f"most often {_words(self.most_common)} ({self.n_most_common})"
        return f"{_words(self.smallest)} to {_words(self.largest)} px, {usual}{behind}"


def image_sizes(table: ImageTable) -> ImageSizes:
    """The sizes of all images of `table`, at least one.

    Raises:
        OSError: A file cannot be opened.
    """
    sizes: Counter[Size] = Counter()
    formats: Counter[str] = Counter()
    for image in table.images:
        size, form = _header(image)
        sizes[size] += 1
        if form:
            formats[form] += 1
    by_pixels = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    (most_common, n), *_ = sizes.most_common(1)
    return ImageSizes(by_pixels[0], most_common, n, by_pixels[-1], dict(formats.most_common()))


def _header(image: Image) -> tuple[Size, str]:
    if not isinstance(image, str):
        return (image.shape[1], image.shape[0]), ""
    with Pillow.open(image) as opened:
        width, height = opened.size
        told = "exif" in opened.info  # to look further on would decode a PNG, and Pillow turns a TIFF's size itself
        turned = told and opened.getexif().get(ExifTags.Base.Orientation) in _ON_THEIR_SIDE
        return ((height, width) if turned else (width, height)), opened.format or ""


def _words(size: Size) -> str:
    return f"{size[0]}×{size[1]}"
