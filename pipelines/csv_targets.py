"""Files that a command is told to write: refused before anything is done, where they cannot be written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipelines.config_groups import DataConfig
from rebalance.errors import InputError


def check_csv(flag: str, file: Path) -> None:
    """Refuse a name that is no CSV file's, and a place where none can be written.

    Raises:
        InputError: Such a name or place.
    """
    if file.suffix.lower() != ".csv" or file.is_dir():
        raise InputError(f"{flag} FILE.csv", str(file), "name a CSV file to write")
    check_place(flag, file)


def check_place(flag: str, file: Path) -> None:
    """Refuse a file in a place where none can be written.

    Raises:
        InputError: Such a place.
    """
    parent = next(folder for folder in file.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"a folder to write {file.name} into", str(parent), f"choose another {flag}")


def refuse_sources(flag: str, data: DataConfig, files: Sequence[Path]) -> None:
    """Refuse to write over a list that the data are read from.

    Raises:
        InputError: One of the files is such a list.
    """
    sources = (Path(data.data), data.val_list, data.test_list)
    read = {source.resolve() for source in sources if source is not None}
    for file in files:
        if file.resolve() in read:
            raise InputError("another file to write", f"{file}, which is read", f"choose another {flag}")
