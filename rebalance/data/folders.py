"""Class folders: `DATA/<class>/*`, or `DATA/{train,val,test}/<class>/*`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from rebalance.data.table import ImageTable, Splits
from rebalance.errors import InputError, nearest

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .jp2 .avif .tga".split()
)
_SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


def read_folder(root: Path) -> Splits:
    """The splits of a folder of images; no image is opened.

    `root` holds splits where it has a `train` folder with class folders inside, else it holds the classes.

    Raises:
        InputError: No such folder, no class folders, no images, or a class in val or test that train lacks.
    """
    if not root.exists():
        raise InputError("a folder of images", f"no such path: {root}", "check the path")
    if not root.is_dir():
        raise InputError("a folder of images", f"a file: {root}", "give the folder that holds the class folders")
    folders = {split: _find(root, names) for split, names in _SPLIT_NAMES.items()}
    if folders["train"] is None or not _subfolders(folders["train"]):
        return Splits(read_classes(root))
    train = read_classes(folders["train"])
    others = {split: folder for split, folder in folders.items() if folder is not None and split != "train"}
    tables = {split: read_classes(folder, train.classes) for split, folder in others.items()}
    return Splits(train, tables.get("val"), tables.get("test"))


def read_classes(folder: Path, classes: tuple[str, ...] | None = None) -> ImageTable:
    """The images of `folder`, one class per sub-folder, classes and files in sorted order.

    Args:
        folder: Folder with class folders, which may hold folders of their own.
        classes: The known classes; by default the names of the sub-folders.

    Raises:
        InputError: No class folder, no image, or a class that is not among `classes`.
    """
    names = tuple(sorted(entry.name for entry in _subfolders(folder)))
    if not names:
        found = "loose images" if any(_is_image(name) for name in os.listdir(folder)) else "no folders"
        raise InputError(
            "a folder with one sub-folder per class", f"{found} in {folder}", "sort the images into class folders"
        )
    if classes is None:
        classes = names
    for name in names:
        if name not in classes:
            raise InputError("the classes of the training split", f"class {name!r} in {folder}", nearest(name, classes))
    images: list[str] = []
    targets: list[int] = []
    for name in names:
        files = _images_below(folder / name)
        images += files
        targets += [classes.index(name)] * len(files)
    if not images:
        raise InputError("images in the class folders", f"none in {folder}", "image files end in .jpg, .png, .webp, …")
    return ImageTable(images, np.array(targets, dtype=np.int64), classes)


def _find(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]


def _images_below(folder: Path) -> list[str]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders.sort()
        found += [os.path.join(parent, name) for name in sorted(files) if _is_image(name)]  # 3× faster
    return found


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
