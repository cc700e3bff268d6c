"""Class folders: `DATA/<class>/*`, or `DATA/{train,val,test}/<class>/*`, also spelt Training, Valid, Testing ….

Hidden files and folders are not read.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from rebalance.data.endings import is_image
from rebalance.data.image_files import check_encoding, images_below, is_hidden
from rebalance.data.remarks import Remarks, strange_classes
from rebalance.data.table import ImageTable, Splits
from rebalance.errors import InputError, did_you_mean, quoted

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def read_folder(root: Path, *, lenient: bool = False) -> Splits:
    """The splits of a folder of images; no image is opened.

    Args:
        root: Holds splits where it has a `train` folder with class folders inside, else the classes.
        lenient: Leave out classes that train lacks, with a warning, and splits that have no others.

    Raises:
        InputError: No such folder, no class folders, no images, a split twice, or a class in val or test that train
            lacks.
    """
    if not root.exists():
        raise InputError("a folder of images", f"no such path: {root}", "check the path")
    if not root.is_dir():
        raise InputError("a folder of images", f"a file: {root}", "give the folder that holds the class folders")
    folders: dict[str, Path] = {}
    others: list[str] = []
    remarks = Remarks(strange=[] if lenient else None)
    for folder in sorted(_subfolders(root)):
        split = _SPLITS.get(folder.name.lower())
        if split is None:
            others.append(folder.name)
        elif split in folders:
            raise InputError(f"one {split} folder in {root}", f"{folders[split].name} and {folder.name}", "remove one")
        else:
            folders[split] = folder
    if "train" not in folders or not _subfolders(folders["train"]):
        if folders and not others:
            raise InputError(
                "a train folder with one sub-folder per class", f"none in {root}", "sort the images into class folders"
            )
        table = read_classes(root, remarks=remarks)
        return Splits(table, notes=tuple(remarks.notes()), warnings=tuple(remarks.warnings()))
    train = read_classes(folders["train"], remarks=remarks)
    tables = {
        split: read_classes(folder, train.classes, remarks=remarks)
        for split, folder in folders.items()
        if split != "train"
    }
    if remarks.strange:
        tables = {split: table for split, table in tables.items() if len(table)}
    notes = remarks.notes()
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        notes.append(f"folders beside the splits are not read: {', '.join(others[:5])}{more}")
    return Splits(train, tables.get("val"), tables.get("test"), tuple(notes), tuple(remarks.warnings()))


def read_classes(folder: Path, classes: tuple[str, ...] | None = None, *, remarks: Remarks | None = None) -> ImageTable:
    """The images of `folder`, one class per sub-folder, classes and files in sorted order.

    Args:
        folder: Folder with class folders, which may hold folders of their own.
        classes: The known classes; by default the names of the sub-folders.
        remarks: Take up what is to be said of the folder.

    Raises:
        InputError: No class folder, no image, or images of a class that is not among `classes`, unless the remarks
            take it up.
    """
    names = tuple(sorted(entry.name for entry in _subfolders(folder)))
    if not names:
        found = "loose images" if any(is_image(name) for name in os.listdir(folder)) else "no folders"
        raise InputError(
            "a folder with one sub-folder per class", f"{found} in {folder}", "sort the images into class folders"
        )
    if classes is None:
        classes = names
    remarks = Remarks() if remarks is None else remarks
    remarks.unread["image(s) beside the class folders"] += sum(map(is_image, os.listdir(folder)))
    remarks.unread["other file(s) beside the class folders"] += len(_other_files(folder))
    remarks.add_links(folder, names)
    ids = {name: i for i, name in enumerate(classes)}
    images: list[str] = []
    targets: list[int] = []
    strange: Counter[str] = Counter()
    for name in names:
        unread: Counter[str] = Counter()
        files = images_below(folder / name, unread)
        remarks.add_class(name, len(files), unread)
        if files and name not in ids:
            strange[name] = len(files)
            continue
        images += files
        targets += [ids[name] for _ in files]
    check_encoding([*classes, *strange, *images])
    if strange:
        _take_up(strange, classes, folder, remarks)
    elif not images:
        raise InputError("images in the class folders", f"none in {folder}", "image files end in .jpg, .png, .webp, …")
    return ImageTable(images, np.array(targets, dtype=np.int64), classes)


def _take_up(strange: Counter[str], classes: tuple[str, ...], folder: Path, remarks: Remarks) -> None:
    if remarks.strange is not None:
        remarks.strange.append(strange_classes(strange, folder))
        return
    one = len(strange) == 1
    raise InputError(
        "the classes of the training split",
        f"class{'' if one else 'es'} {quoted(strange)} in {folder}",
        f"{did_you_mean(next(iter(strange)), classes) if one else ''}add {'it' if one else 'them'} to train, or remove "
        f"the folder{'' if one else 's'}",
    )


def _other_files(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.is_dir()]
    return [name for name in names if not is_image(name) and not is_hidden(name)]


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir() and not is_hidden(entry.name)]
