"""Files that appear whole or not at all: written under a temporary name, then renamed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from rebalance.errors import InputError


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all, also if the machine stops."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove the files below `folder` that a killed process was writing; nobody may be writing there now."""
    for file in folder.rglob(".*.tmp"):
        if file.is_file():
            file.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A header and rows as CSV; None is empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")  # with "\n" it would not quote a "\r" in a name
    for row in (columns, *rows):
        writer.writerow(row)
        text.seek(text.tell() - 2)
        text.write("\n")
        text.truncate()
    return text.getvalue()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """`write_text` of `csv_text`."""
    write_text(path, csv_text(columns, rows))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of indented JSON; NaN and infinity are refused, since JSON has neither."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        InputError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"a file {path.name}", f"none in {path.parent}", "check the folder") from error
    except ValueError as error:
        raise InputError("JSON", f"{path}: {error}", "restore the file, or start again in a new folder") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """`write_bytes` of tensors as safetensors; tensors that share memory are saved once each."""
    write_bytes(path, save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}))


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_free_space(folder: Path, needed_bytes: float, purpose: str) -> None:
    """Refuse to begin what the disk cannot hold, with a tenth to spare.

    Raises:
        InputError: Less free space at `folder` than 1.1 × `needed_bytes`.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < 1.1 * needed_bytes:
        raise InputError(
            f"{1.1 * needed_bytes / 1e6:,.0f} MB of free disk for {purpose}",
            f"{free / 1e6:,.0f} MB at {existing}",
            "free some space, choose another folder, or ask for less",
        )
