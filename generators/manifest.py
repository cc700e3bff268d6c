"""Which images were made, how, and what became of them.

While images are made, every rank appends a line per image to a journal of its own; a line that a kill tore is dropped
and its image made again. At the end all lines become one manifest, sorted by job id and without times, so that it is
the same whatever was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from rebalance.errors import InputError
from rebalance.files import sha256, write_csv, write_text

Row = dict[str, Any]
"""job, class, label, index, seed, generator, path, sha256, bytes, the job's settings, made_by (the generator's facts),
and failure where there is no image; in the manifest also verdict, reason, scores."""

KEPT, REJECTED, SPARE = "kept", "rejected", "spare"


def rows_by_class(rows: Iterable[Row], classes: Iterable[str]) -> dict[str, list[Row]]:
    """The rows of each class, in their order; a class without rows has none."""
    found: dict[str, list[Row]] = {name: [] for name in classes}
    for row in rows:
        found[row["class"]].append(row)
    return found


@final
class Journal:
    """An append-only file of rows, one JSON object a line, each on disk before the next is begun.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
        self._file = path.open("a", encoding="utf-8")
        if torn:
            self._file.write("\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows and wait until they are on disk."""
        lines = [json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows]
        if not lines:
            return
        self._file.writelines(lines)
        self._file.flush()
        os.fsync(self._file.fileno())


def read_journals(folder: Path, root: Path, known: Mapping[str, Row] | None = None) -> dict[str, Row]:
    """Job id → row, for the rows of all journals in `folder` whose image is whole.

    Args:
        folder: Where the journals are.
        root: What the rows' paths are relative to.
        known: Rows whose images need not be looked at again.
    """
    seen = known or {}
    rows: dict[str, Row] = {}
    for journal in sorted(folder.glob("*.jsonl")):
        for line in _lines(journal):
            try:
                row = json.loads(line)
                job = str(row["job"])
                whole = row["path"] is None or seen.get(job) == row or sha256(root / row["path"]) == row["sha256"]
            except (ValueError, KeyError, TypeError, OSError):
                continue  # a torn line, or an image that is missing or was changed
            if whole:
                rows[job] = row
    return rows


def write_manifest(folder: Path, rows: Iterable[Row]) -> None:
    """`manifest.jsonl` and `manifest.csv` of `folder`, sorted by job id."""
    ordered = sorted(rows, key=lambda row: str(row["job"]))
    write_text(
        folder / "manifest.jsonl",
        "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in ordered),
    )
    flat = [_flat(row) for row in ordered]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    write_csv(folder / "manifest.csv", columns, ([row.get(name) for name in columns] for row in flat))


def read_manifest(folder: Path) -> list[Row]:
    """The rows of a manifest.

    Raises:
        InputError: No manifest, a damaged or repeated line, a path that leads outside the folder, or an image that was
            changed.
    """
    file = folder / "manifest.jsonl"
    if not file.is_file():
        raise InputError("a folder of `rebalance synthesize`", f"{folder}, without manifest.jsonl", "check the path")
    root = os.path.realpath(folder)
    rows: dict[str, Row] = {}
    for number, line in enumerate(_lines(file), 1):
        place = f"{file}:{number}"
        try:
            row = _whole_row(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError("whole manifest lines", f"{place}: {error!r}", _AGAIN) from error
        if row["path"] is not None:
            if not os.path.realpath(folder / row["path"]).startswith(root + os.sep):
                raise InputError(f"paths inside {folder}", f"{row['path']!r} in {place}", _AGAIN)
            _check_image(folder / row["path"], row["sha256"], place)
        if row["job"] in rows:
            raise InputError("one line for each job", f"{place}: job {row['job']} again", _AGAIN)
        rows[row["job"]] = row
    return list(rows.values())


_AGAIN = "synthesize again into a new folder"


def _lines(file: Path) -> list[str]:
    """The lines of a file; `str.splitlines` would also split at characters that a class name may hold."""
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _whole_row(row: Row) -> Row:
    """`row`, with everything that a reader of the manifest counts on."""
    path = row["path"]
    if not isinstance(path, str | None) or "\0" in (path or "") or (path is None and row["verdict"] == KEPT):
        raise ValueError(f"path {path!r}")
    if row["verdict"] not in (KEPT, REJECTED, SPARE):
        raise ValueError(f"verdict {row['verdict']!r}")
    if not isinstance(row["job"], str) or not isinstance(row["class"], str) or not isinstance(row["index"], int):
        raise ValueError("job, class or index")
    return row


def _check_image(path: Path, digest: str, place: str) -> None:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError("the images that the manifest lists", f"{place}: {error}", _AGAIN) from error
    if found != digest:
        raise InputError("images as the manifest describes them", f"{place}: {path} was changed", _AGAIN)


def _flat(row: Mapping[str, Any]) -> Row:
    """Nested values as columns `name.key`."""
    flat: Row = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": item for key, item in _flat(value).items()}
        else:
            flat[name] = value
    return flat
