"""List files: `path label` lines as the field's papers ship them, or CSV with named columns."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from pathlib import Path

import numpy as np

from rebalance.data.endings import IMAGE_SUFFIXES, TABLE_SUFFIXES, is_image
from rebalance.data.list_rows import SPLITS, ListFormat, Row, read_csv, read_rows, split_of
from rebalance.data.remarks import strange_classes
from rebalance.data.table import ImageTable, Splits
from rebalance.errors import InputError, did_you_mean
from rebalance.files import csv_text
from rebalance.plurals import counted

_SHOWN = 10
_ENDING = re.compile(rf"({'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES)))})\s", re.IGNORECASE)
"""Of an image, inside a line."""


def read_lists(train: Path, val: Path | None, test: Path | None, form: ListFormat, *, lenient: bool = False) -> Splits:
    """The splits that the list files name; no image is opened.

    Labels that are all whole numbers sort by value, others by name; the training split decides the classes.

    Args:
        train: List of the training split, or of all.
        val: List of the validation split.
        test: List of the test split.
        form: How to read them.
        lenient: Leave out rows of classes that train lacks, with a warning, and splits that have no others.

    Raises:
        InputError: A missing or malformed file, a column that seems to say the split under another name than the
            given one, a path outside the root or without a file, a split that is given twice, an image that is in two
            splits, or a class in val or test that train lacks.
    """
    named = form.split_column != ListFormat.split_column
    rows = {"train": read_rows(train, form, splits=named and val is None and test is None)}
    for name, path in (("val", val), ("test", test)):
        if path is not None:
            given = read_rows(path, form, splits=False)
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
    warnings: list[str] = []
    if lenient:
        rows, warnings = _without_strangers(rows, {*classes}, files)
    read = {name: _table(part, classes, files[name], form) for name, part in rows.items()}
    tables = {name: table for name, (table, _) in read.items()}
    _check_apart(tables, files)
    n_turned = sum(n for _, n in read.values())
    notes = (f"{counted(n_turned, 'path')} with \\ are read with / in its place",) if n_turned else ()
    return Splits(tables["train"], tables.get("val"), tables.get("test"), notes, tuple(warnings))


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
    read = read_csv(Path("list.csv"), text, ListFormat(), splits=False)
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


def _by_split(rows: Sequence[Row], path: Path, needed: str) -> dict[str, list[Row]]:
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(split_of(row[2]), []).append(row)
    if unknown := [split for split in parts if split not in SPLITS]:
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


def _without_strangers(
    rows: Mapping[str, Sequence[Row]], classes: Set[str], files: Mapping[str, Path]
) -> tuple[dict[str, list[Row]], list[str]]:
    """The rows of known classes, and a warning of the others; splits without known ones are left out."""
    known = {name: [row for row in part if row[1] in classes] for name, part in rows.items()}
    strange = {name: Counter(label for _, label, _ in part if label not in classes) for name, part in rows.items()}
    warnings = [strange_classes(counts, files[name]) for name, counts in strange.items() if counts]
    return {name: part for name, part in known.items() if part}, warnings


def _class_names(labels: Sequence[str]) -> tuple[str, ...]:
    names = set(labels)
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))  # 1 and 01 are two classes
    return tuple(sorted(names))


def _table(rows: Sequence[Row], classes: tuple[str, ...], path: Path, form: ListFormat) -> tuple[ImageTable, int]:
    """The rows as a table, and how many paths are found only with / for Windows' separator."""
    ids = {name: i for i, name in enumerate(classes)}
    root = os.path.realpath(form.root or path.parent)
    images: list[str] = []
    targets: list[int] = []
    for image, label, _ in rows:
        if label not in ids:
            fix = f"{did_you_mean(label, classes)}add it to train, or take its rows out of the list"
            raise InputError("the classes of the training list", f"class {label!r} in {path}", fix)
        images.append(inside(root, image, path))
        targets.append(ids[label])
    missing = [row for row, image in enumerate(images) if not os.path.exists(image)]  # millions of rows
    turned = {}
    for row in missing:
        name = rows[row][0]
        if "\\" in name and os.path.exists(there := inside(root, name.replace("\\", "/"), path)):
            turned[row] = there
    for row, there in turned.items():
        images[row] = there
    if missing := [row for row in missing if row not in turned]:
        few = len(missing) < len(images)
        fix = "bring them, or take their rows out of the list" if few else "set --root to the folder that they are in"
        if path.suffix.lower() not in TABLE_SUFFIXES and (line := _line_with_blanks([rows[row] for row in missing])):
            fix = f"{line!r} has blanks in its label: such names need a CSV file with the columns path,label"
        raise InputError(
            f"the files that {path.name} lists",
            f"{len(missing)} of {len(images)} missing, the first {images[missing[0]]}",
            fix,
        )
    return ImageTable(images, np.array(targets, dtype=np.int64), classes), len(turned)


def _line_with_blanks(rows: Sequence[Row]) -> str:
    """The first line whose path goes on behind an image's ending; "" for none."""
    lines = (f"{image} {label}" for image, label, _ in rows if _ENDING.search(image) and not is_image(image))
    return next(lines, "")


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
