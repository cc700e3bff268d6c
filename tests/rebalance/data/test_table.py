from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rebalance.data.table import ImageTable, Splits, concatenate, content_hash

CLASSES = ("cat", "dog")


def paths(*targets: int) -> ImageTable:
    return ImageTable([f"{i}.png" for i in range(len(targets))], np.array(targets, dtype=np.int64), CLASSES)


def test_counts_cover_every_class() -> None:
    assert paths(1, 1).counts.tolist() == [0, 2]
    assert len(paths(1, 1, 0)) == 3


def test_all_images_are_real_unless_said_otherwise() -> None:
    assert paths(0, 1).is_synthetic.tolist() == [False, False]


@pytest.mark.parametrize("pixels", [True, False])
def test_selection_keeps_rows_together_in_the_order_asked_for(pixels: bool) -> None:
    images = np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3) if pixels else list("abcd")
    made = np.array([False, False, True, True])
    table = ImageTable(images, np.array([0, 1, 0, 1]), CLASSES, made).select(np.array([3, 0, 3]))
    assert table.targets.tolist() == [1, 0, 1]
    assert table.is_synthetic.tolist() == [True, False, True]
    assert [image if isinstance(image, str) else "abcd"[image[0, 0, 0]] for image in table.images] == ["d", "a", "d"]
    assert table.classes == CLASSES


def test_selection_of_nothing_is_an_empty_table() -> None:
    assert len(paths(0, 1).select(np.zeros(0, dtype=np.int64))) == 0


def test_added_rows_come_behind_and_count_as_synthetic() -> None:
    table = concatenate(paths(0, 1), paths(1))
    assert table.targets.tolist() == [0, 1, 1]
    assert table.is_synthetic.tolist() == [False, False, True]
    assert concatenate(table, paths(0)).is_synthetic.tolist() == [False, False, True, True]


def test_files_and_pixels_can_stand_in_one_table() -> None:
    pixels = ImageTable(np.zeros((1, 8, 8, 3), dtype=np.uint8), np.array([1]), CLASSES)
    table = concatenate(paths(0), pixels)
    assert [table.name(row) for row in range(2)] == ["0.png", "image 1"]


def test_only_splits_that_exist_are_listed() -> None:
    assert list(Splits(paths(0), test=paths(1)).tables()) == ["train", "test"]
    assert Splits(paths(0)).classes == CLASSES


def test_content_hash_tells_contents_not_names(tmp_path: Path) -> None:
    for name, content in (("a", b"same"), ("b", b"same"), ("c", b"other")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (content_hash(str(tmp_path / name)) for name in "abc")
    assert a == b != c
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert content_hash(pixels) == content_hash(np.asfortranarray(pixels)) != content_hash(pixels[::-1])
