"""Sizes and formats of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rebalance.data.sizes import image_sizes
from rebalance.data.table import ImageTable


def table(folder: Path) -> ImageTable:
    files = sorted(map(str, folder.iterdir()))
    return ImageTable(files, np.zeros(len(files), dtype=np.int64), ("a",))


def test_smallest_and_largest_go_by_pixels_and_formats_are_counted(tmp_path: Path) -> None:
    for i, size in enumerate([(30, 40), (1000, 1), (64, 64), (30, 40)]):
        Image.new("RGB", size).save(tmp_path / f"{i}.jpg")
    Image.new("L", (80, 100)).save(tmp_path / "called.jpg", "PNG")
    found = image_sizes(table(tmp_path))
    assert (found.smallest, found.largest) == ((1000, 1), (80, 100))
    assert (found.most_common, found.n_most_common) == ((30, 40), 2)
    assert found.formats == {"JPEG": 4, "PNG": 1}
    assert str(found) == "1000×1 to 80×100 px, most often 30×40 (2); 4 JPEG, 1 PNG"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize(
    ("orientation", "size"), [*((n, (30, 40)) for n in (1, 2, 3, 4)), *((n, (40, 30)) for n in (5, 6, 7, 8))]
)
def test_images_are_turned_as_exif_says(tmp_path: Path, suffix: str, orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (30, 40)).save(tmp_path / f"a.{suffix}", exif=exif)
    assert image_sizes(table(tmp_path)).largest == size


def test_no_pixels_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in ("jpg", "png", "gif", "webp", "tif", "bmp"):
        Image.new("RGB", (30, 40)).save(tmp_path / f"a.{suffix}")

    def fail(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    assert str(image_sizes(table(tmp_path))).startswith("all 30×40 px; 1 ")


def test_arrays_have_one_size_and_no_format() -> None:
    images = np.zeros((3, 8, 9, 3), dtype=np.uint8)
    found = image_sizes(ImageTable(images, np.zeros(3, dtype=np.int64), ("a",)))
    assert str(found) == "all 9×8 px"
