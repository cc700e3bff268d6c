from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rebalance.data import repeats
from rebalance.data.repeats import first_copies
from rebalance.data.table import ImageTable


def files(folder: Path, *contents: bytes) -> list[str]:
    paths = [folder / f"{i}.png" for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


def table(images: list[str] | np.ndarray, *targets: int) -> ImageTable:
    return ImageTable(images, np.array(targets, dtype=np.int64), ("a", "b"))


def test_copies_are_found_by_content_within_a_class(tmp_path: Path) -> None:
    images = files(tmp_path, b"one", b"two", b"one", b"three", b"one", b"two")
    assert first_copies(table(images, 0, 0, 0, 0, 0, 0)).tolist() == [0, 1, 0, 3, 0, 1]
    assert first_copies(table(images, 0, 0, 1, 0, 1, 1)).tolist() == [0, 1, 2, 3, 2, 5]


def test_pixels_are_compared_with_their_shape() -> None:
    images = np.zeros((4, 2, 3, 3), dtype=np.uint8)
    images[1, 0, 0, 0] = 1
    assert first_copies(table(images, 0, 0, 0, 1)).tolist() == [0, 1, 0, 3]
    turned = [images[0], images[0].transpose(1, 0, 2)]
    assert first_copies(ImageTable(turned, np.zeros(2, dtype=np.int64), ("a",))).tolist() == [0, 1]


def test_files_that_cannot_be_read_are_like_no_other(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    missing = [str(tmp_path / "link"), str(tmp_path / "gone"), str(tmp_path / "link")]
    assert first_copies(table(missing, 0, 0, 0)).tolist() == [0, 1, 2]


def test_only_files_of_one_length_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = files(tmp_path, b"1", b"22", b"333", b"444", b"22")
    read: list[str] = []
    content = repeats._content
    monkeypatch.setattr(repeats, "_content", lambda image: read.append(image) or content(image))
    assert first_copies(table(images, 0, 0, 0, 0, 1)).tolist() == [0, 1, 2, 3, 4]
    assert read == images[2:4]


def test_no_rows_have_no_copies() -> None:
    assert first_copies(table([])).tolist() == []
