"""Image files in folders: by their endings, in sorted order, and what is not read named; none is opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rebalance.data.endings import HEIC_SUFFIXES, LIST_SUFFIXES, is_image
from rebalance.errors import InputError

LINKED_FOLDERS = "linked folder(s)"
"""A kind of what is not read."""


def find_images(paths: Sequence[Path]) -> tuple[list[str], tuple[str, ...]]:
    """The files among `paths`, whatever their ending, and the image files at any depth of the folders among them.

    Returns:
        Files in the order of `paths`, each once, however often and by whatever path it is named, and notes on what in
            the folders was not read.

    Raises:
        InputError: Nothing given, no such path, a text or list file, or a folder without images.
    """
    if not paths:
        raise InputError("image files, or folders of them", "none", "name them after RUN")
    unread: Counter[str] = Counter()
    named: list[str] = []
    for path in paths:
        if path.is_dir():
            images = images_below(path, unread)
            if not images:
                notes = "".join(f"; {note}" for note in unread_notes(unread))
                fix = "image files end in .jpg, .png, .webp, …; linked folders have to be named themselves"
                raise InputError("images in every folder", f"none in {path}{notes}", fix)
            named += images
        elif not path.exists():
            raise InputError("image files, or folders of them", f"no such path: {path}", "check the path")
        elif path.suffix.lower() in LIST_SUFFIXES:
            kind = "text" if path.suffix.lower() == ".txt" else "list"
            raise InputError("image files, or folders of them", f"a {kind} file: {path}", "name the images themselves")
        else:
            named.append(str(path))
    found = _each_once(named)
    check_encoding(found)
    return found, tuple(unread_notes(unread))


def _each_once(files: Sequence[str]) -> list[str]:
    """`files` without those that an earlier name stands for; links to folders are followed, to files not."""
    folders: dict[str, str] = {}
    found: dict[tuple[str, str], str] = {}
    for file in files:
        folder, name = os.path.split(file)
        if folder not in folders:  # once for each of few folders
            folders[folder] = os.path.realpath(folder)
        found.setdefault((folders[folder], name), file)
    return list(found.values())


def images_below(folder: Path, unread: Counter[str]) -> list[str]:
    """The image files at any depth of `folder`; hidden files and folders, and linked folders, are not read.

    Args:
        folder: Where to look.
        unread: Counts what is not read, by kind; what is hidden is not counted.

    Raises:
        OSError: A folder that cannot be listed.
    """
    found = []
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        unread[LINKED_FOLDERS] += sum(os.path.islink(os.path.join(parent, name)) for name in folders)
        images = [name for name in sorted(files) if is_image(name)]
        found += [os.path.join(parent, name) for name in images]  # 3× faster
        if len(images) < len(files):
            unread.update(
                os.path.splitext(name)[1].lower() or "file(s) without an ending"
                for name in files
                if not is_image(name) and not is_hidden(name)
            )
    return found


def _refuse(error: OSError) -> None:
    """Without this `os.walk` passes by a folder that it cannot list."""
    raise error


def unread_notes(unread: Counter[str]) -> list[str]:
    """What was not read, in a sentence; nothing where there is nothing to say."""
    kinds = [f"{n} {kind}" for kind, n in unread.most_common() if n]
    more = f" and {len(kinds) - 5} more kinds" if len(kinds) > 5 else ""
    fix = "; convert HEIC to JPEG" if any(unread[kind] for kind in HEIC_SUFFIXES) else ""
    return [f"not read: {', '.join(kinds[:5])}{more}{fix}"] if kinds else []


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed by."""
    return name.startswith(".") or name in ("__MACOSX", "@eaDir")  # .ipynb_checkpoints holds copies, the others none


def check_encoding(names: Sequence[str]) -> None:
    """Refuse names that no file in UTF-8 can hold.

    Raises:
        InputError: Such a name.
    """
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(
                "names of files and folders in UTF-8", repr(os.fsencode(name)), "rename it, for example with convmv"
            ) from None
