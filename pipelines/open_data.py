"""A data set, decoded, with what every training needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipelines.config_groups import DataConfig
from pipelines.console import log
from pipelines.loading import DecodedTable, check_every_class, fingerprint, image_size, load_splits, open_splits
from rebalance.data.store import pixel_statistics
from rebalance.data.table import Splits


@dataclass(frozen=True)
class OpenData:
    """A data set, decoded.

    Args:
        config: What was asked for.
        splits: The tables, before unreadable images were left out.
        size: Height and width, px.
        tables: Decoded tables by split.
        mean: Of the training pixels in [0, 1], (3,).
        std: Likewise.
        fingerprint: Hash of which images are in which class of which split.
    """

    config: DataConfig
    splits: Splits
    size: int
    tables: dict[str, DecodedTable]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    @property
    def train(self) -> DecodedTable:
        """The training images."""
        return self.tables["train"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, by id."""
        return self.splits.classes


def open_data(config: DataConfig, device: torch.device, splits: Splits | None = None) -> OpenData:
    """Load and decode what `config` names.

    Raises:
        InputError: Anything wrong with the data.
    """
    splits = splits if splits is not None else load_splits(config)
    for note in splits.notes:
        log.info("%s", note)
    for warning in splits.warnings:
        log.warning("warning: %s", warning)
    size = image_size(config, splits.train)
    tables = open_splits(splits, size, config, device, ("train", "val", "test"))
    check_every_class(tables["train"].table)
    mean, std = pixel_statistics(tables["train"].store, len(tables["train"].table))
    return OpenData(config, splits, size, tables, tuple(mean), tuple(std), fingerprint(splits))
