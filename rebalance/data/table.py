"""Rows of images with class ids: what every source becomes, without opening an image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rebalance.counts import IntArray, class_counts

BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]
Image = str | ByteArray
"""A file path, or pixels (H, W, 3) uint8."""


@dataclass(frozen=True)
class ImageTable:
    """Images, their class ids, and which of them are synthetic.

    Args:
        images: File paths or (H, W, 3) uint8 arrays, N of them; a (N, H, W, 3) array will do.
        targets: Class ids (N,).
        classes: Class names (C,), by id.
        synthetic: True where the image was made, (N,); all real by default.
    """

    images: Sequence[Image] | ByteArray
    targets: IntArray
    classes: tuple[str, ...]
    synthetic: BoolArray | None = None

    def __post_init__(self) -> None:
        assert len(self.images) == len(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def counts(self) -> IntArray:
        """Images of each class, (C,)."""
        return class_counts(self.targets, len(self.classes))

    @property
    def is_synthetic(self) -> BoolArray:
        """True where the image was made, (N,)."""
        return np.zeros(len(self), dtype=np.bool_) if self.synthetic is None else self.synthetic

    def select(self, rows: IntArray) -> ImageTable:
        """The table of these rows, in this order."""
        images = self.images[rows] if isinstance(self.images, np.ndarray) else [self.images[i] for i in rows]
        synthetic = None if self.synthetic is None else self.synthetic[rows]
        return replace(self, images=images, targets=self.targets[rows], synthetic=synthetic)

    def name(self, row: int) -> str:
        """What to call a row in a message: its path, or its number."""
        image = self.images[row]
        return image if isinstance(image, str) else f"image {row}"


def concatenate(real: ImageTable, added: ImageTable) -> ImageTable:
    """`real` followed by `added`, whose rows count as synthetic."""
    synthetic = np.concatenate([real.is_synthetic, np.ones(len(added), dtype=np.bool_)])
    targets = np.concatenate([real.targets, added.targets])
    return ImageTable([*real.images, *added.images], targets, real.classes, synthetic)


@dataclass(frozen=True)
class Splits:
    """A data set: train, and where there is one, a validation and a test split.

    Args:
        train: Training images, real ones only.
        val: Validation images; read to select and to tune.
        test: Test images; read once, at the end.
        notes: What was done to the data that the user should know.
        warnings: What of the data will hurt.
    """

    train: ImageTable
    val: ImageTable | None = None
    test: ImageTable | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, by id."""
        return self.train.classes

    def tables(self) -> dict[str, ImageTable]:
        """The splits that exist, by name."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: table for name, table in named.items() if table is not None}


def content_hash(image: Image) -> bytes:
    """Hash of an image's file, or of its pixels where it has none."""
    if isinstance(image, str):
        with Path(image).open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes()).digest()
