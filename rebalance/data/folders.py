"""Class folders: `DATA/<class>/*`, or `DATA/{train,val,test}/<class>/*`, also spelt Training, Valid, Testing ….

Hidden files and folders are not read.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from rebalance.data.endings import is_image
from rebalance.data.image_files import check_encoding, images_below, is_hidden, unread_notes
from rebalance.data.table import ImageTable, Splits
from rebalance.errors import InputError, nearest

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def read_folder(root: Path) -> Splits:
    """The splits of a folder of images; no image is opened.

    `root` holds splits where it has a `train` folder with class folders inside, else it holds the classes.

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
    unread: Counter[str] = Counter()
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
        return Splits(read_classes(root, unread=unread), notes=tuple(unread_notes(unread)))
    train = read_classes(folders["train"], unread=unread)
    tables = {
        split: read_classes(folder, train.classes, unread=unread)
        for split, folder in folders.items()
        if split != "train"
    }
    notes = unread_notes(unread)
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        notes.append(f"folders beside the splits are not read: {', '.join(others[:5])}{more}")
    return Splits(train, tables.get("val"), tables.get("test"), tuple(notes))


def read_classes(
    folder: Path, classes: tuple[str, ...] | None = None, *, unread: Counter[str] | None = None
) -> ImageTable:
    """The images of `folder`, one class per sub-folder, classes and files in sorted order.

    Args:
        folder: Folder with class folders, which may hold folders of their own.
        classes: The known classes; by default the names of the sub-folders.
        unread: Counts what is not read, by kind.

    Raises:
        InputError: No class folder, no image, or images of a class that is not among `classes`.
    """
    names = tuple(sorted(entry.name for entry in _subfolders(folder)))
    if not names:
        found = "loose images" if any(is_image(name) for name in os.listdir(folder)) else "no folders"
        raise InputError(
            "a folder with one sub-folder per class", f"{found} in {folder}", "sort the images into class folders"
        )
    if classes is None:
        classes = names
    unread = Counter() if unread is None else unread
    unread["image(s) beside the class folders"] += sum(map(is_image, os.listdir(folder)))
    unread["other file(s) beside the class folders"] += len(_other_files(folder))
    ids = {name: i for i, name in enumerate(classes)}
    images: list[str] = []
    targets: list[int] = []
    for name in names:
        files = images_below(folder / name, unread)
        if files and name not in ids:
            raise InputError("the classes of the training split", f"class {name!r} in {folder}", nearest(name, classes))
        images += files
        targets += [ids[name] for _ in files]
    check_encoding([*classes, *images])
    if not images:
        raise InputError("images in the class folders", f"none in {folder}", "image files end in .jpg, .png, .webp, …")
    return ImageTable(images, np.array(targets, dtype=np.int64), classes)


def _other_files(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.is_dir()]
    return [name for name in names if not is_image(name) and not is_hidden(name)]


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir() and not is_hidden(entry.name)]
