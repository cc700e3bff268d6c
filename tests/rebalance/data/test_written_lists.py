from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rebalance.data.list_rows import ListFormat
from rebalance.data.lists import list_text, root_beyond
from rebalance.data.table import ImageTable
from rebalance.errors import InputError

Disk = Any
"""See the fixture `disk`."""


def test_a_written_list_is_read_back_with_its_repeats(tmp_path: Path, disk: Disk) -> None:
    names = ('a, "b"/1;2.jpg', "two\nlines.jpg", " blank .jpg", "猫.jpg")
    disk.fill(tmp_path, *names)
    images = [str(tmp_path / name) for name in (*names, *names[:2])]
    table = ImageTable(images, np.array([0, 1, 2, 0, 0, 1]), ('x, "y"', "N/A", "猫"))
    assert root_beyond(tmp_path, [table]) is None
    back = disk.read(disk.write(tmp_path / "list.csv", list_text(table, tmp_path)))
    labels = [table.classes[target] for target in table.targets]
    assert disk.content(back.train, tmp_path) == list(zip([*names, *names[:2]], labels, strict=True))
    absolute = disk.read(disk.write(tmp_path / "list.csv", list_text(table, None)))
    assert disk.content(absolute.train, tmp_path) == disk.content(back.train, tmp_path)


def test_the_root_beyond_is_the_folder_of_all_images(tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, "data/a/1.jpg", "data/b/2.jpg", "lists/x")
    (tmp_path / "lists" / "link.jpg").symlink_to(tmp_path / "data" / "a" / "1.jpg")
    images = [str(tmp_path / "lists" / "link.jpg"), str(tmp_path / "data" / "b" / "2.jpg")]
    table = ImageTable(images, np.array([0, 1]), ("a", "b"))
    root = root_beyond(tmp_path / "lists", [table])
    assert root == (tmp_path / "data").resolve()
    back = disk.read(disk.write(tmp_path / "lists" / "list.csv", list_text(table, None)), ListFormat(root))
    assert disk.content(back.train, root) == [("a/1.jpg", "a"), ("b/2.jpg", "b")]


@pytest.mark.parametrize(
    ("name", "label"), [("a.jpg", " a"), ("a.jpg", "a\t"), ("a.jpg", ""), ("a.jpg", "a\rb"), ("a\r.jpg", "a")]
)
def test_names_that_would_be_read_as_others_are_not_written(name: str, label: str, tmp_path: Path, disk: Disk) -> None:
    disk.fill(tmp_path, name)
    table = ImageTable([str(tmp_path / name)], np.array([0]), (label,))
    with pytest.raises(InputError):
        list_text(table, tmp_path)
