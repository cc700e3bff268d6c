"""Empty image files, lists of them, and what was read: labels are found without opening an image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rebalance.data.list_rows import ListFormat
from rebalance.data.lists import read_lists
from rebalance.data.table import ImageTable, Splits

HERE = ListFormat()


class Disk:
    """Writes files without images, and lists; says what a table of them holds."""

    def fill(self, root: Path, *files: str) -> Path:
        for name in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        return root

    def write(self, path: Path, text: str, encoding: str = "utf-8") -> Path:
        path.write_bytes(text.encode(encoding))
        return path

    def read(self, path: Path, form: ListFormat = HERE) -> Splits:
        """The splits of one list."""
        return read_lists(path, None, None, form)

    def content(self, table: ImageTable | None, root: Path) -> list[tuple[str, str]]:
        """Path below `root` and class of each row."""
        assert table is not None
        names = [os.path.relpath(str(image), os.path.realpath(root)) for image in table.images]
        return [(name, table.classes[target]) for name, target in zip(names, table.targets, strict=True)]


@pytest.fixture
def disk() -> Disk:
    """See `Disk`."""
    return Disk()
