"""Rows of list files: `path label` lines, or CSV with named columns."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rebalance.data.endings import TABLE_SUFFIXES, is_image
from rebalance.errors import InputError, nearest


@dataclass(frozen=True)
class ListFormat:
    """How to read list files.

    Args:
        root: Folder that the paths are relative to and may not leave; by default the list file's own.
        path_column: Column of the image path, in CSV.
        label_column: Column of the class name or number, in CSV.
        split_column: Column that says train, val or test, in CSV; a file without a column "split" is one split, any
            other name has to be in one of the lists. Of a list that is given as validation or test list, rows of that
            split count.
    """

    root: Path | None = None
    path_column: str = "path"
    label_column: str = "label"
    split_column: str = "split"


Row = tuple[str, str, str]
"""Path, label, split ("" where the file does not say)."""
SPLITS = ("train", "val", "test")
_ALIASES = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}
_OFTEN_SPLITS = ("split", "set", "subset", "partition", "fold")
"""Names under which columns say train, val or test."""
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
"""What Excel may write above the columns."""


def read_rows(path: Path, form: ListFormat, *, splits: bool) -> list[Row]:
    """The rows of a list file.

    Args:
        path: The file.
        form: How to read it.
        splits: Whether the split column has to be there.

    Raises:
        InputError: A missing or malformed file, one without rows, or a column that seems to say the split under another
            name than the given one.
    """
    if not path.is_file():
        raise InputError("a list file", f"no such file: {path}", "check the path")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("a list file in UTF-8", f"{path}: {error}", "convert the file to UTF-8") from error
    rows = (
        read_csv(path, text, form, splits=splits) if path.suffix.lower() in TABLE_SUFFIXES else _read_text(path, text)
    )
    if not rows:
        raise InputError("a list file with rows", f"none in {path}", "write one image a line: path label")
    return rows


def _read_text(path: Path, text: str) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), 1):  # splitlines also splits at what a name may hold
        if not line.strip():
            continue
        image, separator, label = line.strip().rpartition("\t" if "\t" in line else " ")
        if not separator or not image.strip():
            raise InputError("lines of `path label`", f"{line!r} in {path}:{number}", "add the label after a space")
        rows.append((image.strip(), label.strip(), ""))
    return rows


def read_csv(path: Path, text: str, form: ListFormat, *, splits: bool) -> list[Row]:
    """The rows of CSV text, as `read_rows`; a separator that the header does not tell is a comma, of .tsv a tab."""
    told = _SEPARATOR_LINE.match(text)
    header = text[told.end() if told else 0 :].partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(header, form)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=told[1] if told else delimiter)
    try:
        if told:
            next(reader.reader)
        return _rows_of(reader, path, form, splits=splits)
    except csv.Error as error:
        raise InputError("a CSV file", f"{path}, row {reader.line_num}: {error}", "look for a lone quote") from error


def _delimiter(header: str, form: ListFormat) -> str:
    names = [name.strip(' "') for name in header.split(";")]  # of some offices' tables
    return ";" if form.path_column in names or (";" in header and "," not in header) else ","


def _rows_of(reader: csv.DictReader[str], path: Path, form: ListFormat, *, splits: bool) -> list[Row]:
    columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
    needed = {"--path-column": form.path_column, "--label-column": form.label_column}
    if splits:
        needed["--split-column"] = form.split_column
    for flag, column in needed.items():
        if column not in columns:
            fix = f"{nearest(column, columns)}; name another with {flag}"
            if any(map(is_image, columns)):
                fix = f"the first line must name the columns: {','.join(needed.values())}"
            raise InputError(f"a column {column!r} in {path.name}", ", ".join(columns) or "none", fix)
    rows: list[Row] = []
    others = [column for column in columns if column not in (form.path_column, form.label_column)]
    told_by = form.split_column if form.split_column in others else None
    doubtful: dict[str, set[str]] = {} if told_by is not None else _like_splits(others, form.split_column)
    for row in reader:
        for column, values in doubtful.items():
            values.add((row[column] or "").strip())
        image, label = row[form.path_column], (row[form.label_column] or "").strip()
        if not image or not label:
            raise InputError("a path and a label in every row", f"{path}:{reader.line_num}", "complete the row")
        rows.append((image, label, (row[told_by] or "").strip() if told_by is not None else ""))
    for column, values in doubtful.items():
        told = values - {""}
        if column.lower() == form.split_column or (told and {split_of(value) for value in told} <= {*SPLITS}):
            raise InputError(
                f"the split in a column {form.split_column!r} of {path.name}",
                f"a column {column!r}",
                f"name it with --split-column {column!r}, or call it otherwise if it says no split",
            )
    return rows


def _like_splits(columns: Sequence[str], expected: str) -> dict[str, set[str]]:
    """Columns that may say the split, with room for their values."""
    return {column: set() for column in columns if column.lower() in (expected, *_OFTEN_SPLITS)}


def split_of(value: str) -> str:
    """The split that a word means, as it is usually called."""
    return _ALIASES.get(value.lower(), value.lower())
