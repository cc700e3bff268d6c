"""What is to be said of class folders once they are read: what was not, links, classes that are not known."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from rebalance.data.endings import ABOUT_IMAGES
from rebalance.data.image_files import LINKED_FOLDERS, unread_notes
from rebalance.errors import quoted
from rebalance.plurals import counted

_MUCH = 0.1
"""Share of a class folder's files."""


@final
@dataclass
class Remarks:
    """What reading adds to, folder by folder.

    Args:
        unread: Files and folders that are not read, by kind.
        much: Classes of whose files more than a tenth is not read.
        unread_there: What is not read of those.
        links: Class folders that are one, in words.
        strange: Classes that are not known, in words, in place of an error; None where they are refused.
    """

    unread: Counter[str] = field(default_factory=Counter)
    much: list[str] = field(default_factory=list)
    unread_there: Counter[str] = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)
    strange: list[str] | None = None

    def add_class(self, name: str, n_images: int, unread: Counter[str]) -> None:
        """A class folder with so many images, and what of it is not read."""
        self.unread += unread
        lost = sum(n for kind, n in unread.items() if kind not in (*ABOUT_IMAGES, LINKED_FOLDERS))
        if lost > _MUCH * (lost + n_images):
            self.much.append(name)
            self.unread_there += unread

    def add_links(self, folder: Path, names: Sequence[str]) -> None:
        """Class folders of `folder`, of which some may be others under another name."""
        seen: dict[str, str] = {}
        for name in sorted(names, key=lambda name: os.path.islink(folder / name)):
            other = seen.setdefault(os.path.realpath(folder / name), name)
            if other != name:
                both = f"{name!r} is a link to {other!r}"
                self.links.append(
                    f"links to one folder: {other!r}, {name!r}" if (folder / other).is_symlink() else both
                )

    def notes(self) -> list[str]:
        """What the user should know."""
        return unread_notes(self.unread - self.unread_there)

    def warnings(self) -> list[str]:
        """What will hurt."""
        much = list(dict.fromkeys(self.much))
        told = f"more than a tenth of the files of {quoted(much)} is "
        unread = [told + note for note in unread_notes(self.unread_there)] if much else []
        return [*unread, *self.links, *(self.strange or [])]


def strange_classes(counts: Counter[str], where: Path) -> str:
    """A warning of classes that train lacks.

    Args:
        counts: Their images, by name.
        where: The folder or list.
    """
    images = counted(counts.total(), "image")
    return f"{where} has {images} of {quoted(counts)}, which train lacks: other commands refuse the data"
