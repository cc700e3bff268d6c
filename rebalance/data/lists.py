"""List files: `path label` lines as the field's papers ship them, or CSV with named columns."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from rebalance.data.table import ImageTable, Splits
from rebalance.errors import InputError, nearest
from rebalance.files import csv_text

TABLE_SUFFIXES = (".csv", ".tsv")
"""Of list files with named columns."""
LIST_SUFFIXES = (".txt", *TABLE_SUFFIXES)


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


_SHOWN = 10
_SPLITS = ("train", "val", "test")
_ALIASES = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}
_OFTEN_SPLITS = ("split", "set", "subset", "partition", "fold")
"""Names under which columns say train, val or test."""
_Row = tuple[str, str, str]  # path, label, split ("" where the file does not say)


def read_lists(train: Path, val: Path | None, test: Path | None, form: ListFormat) -> Splits:
    """The splits that the list files name; no image is opened.

    Labels that are all whole numbers sort by value, others by name; the training split decides the classes.

    Raises:
        InputError: A missing or malformed file, a column that seems to say the split under another name than the
            given one, a path outside the root or without a file, a split that is given twice, an image that is in two
            splits, or a class in val or test that train lacks.
    """
    named = form.split_column != ListFormat.split_column
    rows = {"train": _read(train, form, splits=named and val is None and test is None)}
    for name, path in (("val", val), ("test", test)):
        if path is not None:
            given = _read(path, form, splits=False)
            told = any(split for _, _, split in given)
            rows[name] = _by_split(given, path, name)[name] if told else given
    if named and not any(split for part in rows.values() for _, _, split in part):
        raise InputError(
            f"a column {form.split_column!r} in one of the lists", "none", "name another with --split-column"
        )
    if any(split for _, _, split in rows["train"]):
        parts = _by_split(rows["train"], train, "train")
        for name in ("val", "test"):
            if name in rows and name in parts:
                raise InputError(f"one {name} split", f"rows of it in {train}, and a list", f"leave out --{name}-list")
        rows |= parts
    classes = _class_names([label for _, label, _ in rows["train"]])
    files = {"train": train, "val": val or train, "test": test or train}
    tables = {name: _table(part, classes, files[name], form) for name, part in rows.items()}
    _check_apart(tables, files)
    return Splits(tables["train"], tables.get("val"), tables.get("test"))


def root_beyond(folder: Path, tables: Sequence[ImageTable]) -> Path | None:
    """The root that lists in `folder` have to be read with; None where all images are below it. Links are followed."""
    root = os.path.realpath(folder)
    paths = {path for table in tables for path in _real_paths(table)}
    if all(path.startswith(root.rstrip(os.sep) + os.sep) for path in paths):
        return None
    return Path(os.path.commonpath([os.path.dirname(path) for path in paths]))


def list_text(table: ImageTable, folder: Path | None) -> str:
    """A table of files as CSV with the columns `path` and `label`; rows may repeat.

    Args:
        table: Rows with paths; links are followed.
        folder: Folder that the written paths are relative to; None for absolute ones.

    Raises:
        InputError: A name that would be read back as another one.
    """
    root = None if folder is None else os.path.realpath(folder)
    paths = _real_paths(table)
    written = paths if root is None else [os.path.relpath(path, root) for path in paths]
    labels = [table.classes[target] for target in table.targets]
    text = csv_text((ListFormat.path_column, ListFormat.label_column), zip(written, labels, strict=True))
    rows = [(path, label, "") for path, label in zip(written, labels, strict=True)]
    read = _read_csv(Path("list.csv"), text, ListFormat(), splits=False)
    if read != rows or "\r" in text:  # lists are read with universal line ends
        pairs = zip(rows, read, strict=False)
        wrong = next((row for row, other in pairs if row != other or "\r" in row[0] + row[1]), rows[-1])
        raise InputError(
            "names without blanks at their ends or line ends inside", f"{wrong[0]!r} of class {wrong[1]!r}", "rename it"
        )
    return text


def _real_paths(table: ImageTable) -> list[str]:
    here = os.getcwd()  # what is remembered of folders holds in every directory
    return [_real(os.path.join(here, str(image))) for image in table.images]


def _check_apart(tables: dict[str, ImageTable], files: dict[str, Path]) -> None:
    """What is trained on, or chosen by, is not tested on."""
    seen: dict[str, str] = {}
    for name, table in tables.items():
        paths = [_real(str(image)) for image in table.images]
        for path in paths:
            if (other := seen.get(path, name)) != name:
                raise InputError(
                    "each image in one split",
                    f"{path} in {other} ({files[other]}) and in {name} ({files[name]})",
                    "take it out of one of them",
                )
        seen.update(dict.fromkeys(paths, name))


def _read(path: Path, form: ListFormat, *, splits: bool) -> list[_Row]:
    """The rows; with `splits` the split column has to be there."""
    if not path.is_file():
        raise InputError("a list file", f"no such file: {path}", "check the path")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("a list file in UTF-8", f"{path}: {error}", "convert the file to UTF-8") from error
    rows = _read_csv(path, text, form, splits) if path.suffix.lower() in TABLE_SUFFIXES else _read_text(path, text)
    if not rows:
        raise InputError("a list file with rows", f"none in {path}", "write one image a line: path label")
    return rows


def _read_text(path: Path, text: str) -> list[_Row]:
    rows: list[_Row] = []
    for number, line in enumerate(text.split("\n"), 1):  # splitlines also splits at what a name may hold
        if not line.strip():
            continue
        image, separator, label = line.strip().rpartition("\t" if "\t" in line else " ")
        if not separator or not image.strip():
            raise InputError("lines of `path label`", f"{line!r} in {path}:{number}", "add the label after a space")
        rows.append((image.strip(), label.strip(), ""))
    return rows


def _read_csv(path: Path, text: str, form: ListFormat, splits: bool) -> list[_Row]:
    names = [name.strip(' "') for name in text.partition("\n")[0].split(";")]  # of some offices' tables
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if form.path_column in names else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return _rows_of(reader, path, form, splits)
    except csv.Error as error:
        raise InputError("a CSV file", f"{path}, row {reader.line_num}: {error}", "look for a lone quote") from error


def _rows_of(reader: csv.DictReader[str], path: Path, form: ListFormat, splits: bool) -> list[_Row]:
    columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
    needed = {"--path-column": form.path_column, "--label-column": form.label_column}
    if splits:
        needed["--split-column"] = form.split_column
    for flag, column in needed.items():
        if column not in columns:
            raise InputError(
                f"a column {column!r} in {path.name}",
                ", ".join(columns) or "none",
                f"{nearest(column, columns)}; name another with {flag}",
            )
    rows: list[_Row] = []
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
        if column.lower() == form.split_column or (told and {_split_of(value) for value in told} <= {*_SPLITS}):
            raise InputError(
                f"the split in a column {form.split_column!r} of {path.name}",
                f"a column {column!r}",
                f"name it with --split-column {column!r}, or call it otherwise if it says no split",
            )
    return rows


def _like_splits(columns: Sequence[str], expected: str) -> dict[str, set[str]]:
    """Columns that may say the split, with room for their values."""
    return {column: set() for column in columns if column.lower() in (expected, *_OFTEN_SPLITS)}


def _split_of(value: str) -> str:
    return _ALIASES.get(value.lower(), value.lower())


def _by_split(rows: Sequence[_Row], path: Path, needed: str) -> dict[str, list[_Row]]:
    parts: dict[str, list[_Row]] = {}
    for row in rows:
        parts.setdefault(_split_of(row[2]), []).append(row)
    if unknown := [split for split in parts if split not in _SPLITS]:
        row = parts[unknown[0]][0]
        words = sorted({row[2] for row in rows})
        more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
        raise InputError(
            "a split out of train, val, test",
            f"{row[2]!r} for {row[0]} in {path}",
            "rename them to train, val, test, or name another column with --split-column; the words are "
            f"{', '.join(map(repr, words[:_SHOWN]))}{more}",
        )
    if needed not in parts:
        raise InputError(f"rows of the {needed} split", f"none in {path}", f"mark them with split {needed}")
    return parts


def _class_names(labels: Sequence[str]) -> tuple[str, ...]:
    names = set(labels)
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))  # 1 and 01 are two classes
    return tuple(sorted(names))


def _table(rows: Sequence[_Row], classes: tuple[str, ...], path: Path, form: ListFormat) -> ImageTable:
    ids = {name: i for i, name in enumerate(classes)}
    root = os.path.realpath(form.root or path.parent)
    images: list[str] = []
    targets: list[int] = []
    for image, label, _ in rows:
        if label not in ids:
            raise InputError("the classes of the training list", f"class {label!r} in {path}", nearest(label, classes))
        images.append(inside(root, image, path))
        targets.append(ids[label])
    missing = [image for image in images if not os.path.exists(image)]  # millions of rows
    if missing:
        few = len(missing) < len(images)
        raise InputError(
            f"the files that {path.name} lists",
            f"{len(missing)} of {len(images)} missing, the first {missing[0]}",
            "bring them, or take their rows out of the list" if few else "set --root to the folder that they are in",
        )
    return ImageTable(images, np.array(targets, dtype=np.int64), classes)


def inside(root: str, name: str, source: Path) -> str:
    """The path of `name` below `root` (a real path).

    Raises:
        InputError: `name` leads outside the root, also by a link.
    """
    if "\0" in name:
        raise InputError("paths without a NUL character", f"{name!r} in {source}", "mend the list file")
    joined = os.path.join(root, name)  # millions of rows
    real = _real(joined)
    if os.path.basename(joined) in ("", "..") or not real.startswith(root.rstrip(os.sep) + os.sep):
        raise InputError(f"paths inside {root}", f"{name!r} in {source}", "move the image there, or set --root")
    return joined


def _real(path: str) -> str:
    """The path without links."""
    folder, file = os.path.split(path)
    return os.path.realpath(path) if os.path.islink(path) else os.path.join(_real_folder(folder), file)


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)
