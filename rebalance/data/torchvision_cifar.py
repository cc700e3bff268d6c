"""CIFAR-10 and CIFAR-100 as torchvision lays them on disk; nothing is downloaded unless asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rebalance.data.table import ImageTable, Splits
from rebalance.errors import InputError


def read_cifar(name: str, root: Path, *, download: bool = False) -> Splits:
    """Train and test of "cifar10" or "cifar100".

    torchvision verifies the checksum of each file before it unpickles it.

    Args:
        name: "cifar10" or "cifar100".
        root: Folder that holds `cifar-10-batches-py` or `cifar-100-python`.
        download: Fetch the files if they are not there.

    Raises:
        InputError: The files are not there and cannot be fetched, or their checksum is wrong.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    source = CIFAR10 if name == "cifar10" else CIFAR100
    try:
        parts = [source(str(root), train=train, download=download) for train in (True, False)]
    except RuntimeError as error:
        there = (root / str(source.base_folder)).is_dir()
        raise InputError(
            f"{source.base_folder} with unchanged files in {root}",
            "missing or changed files" if there else "no such folder",
            "give the folder that holds it with --root, or fetch it with --download",
        ) from error
    except OSError as error:
        raise InputError(
            f"{source.base_folder} to be fetched into {root}", str(error), "check the connection, or fetch it by hand"
        ) from error
    tables = [ImageTable(p.data, np.array(p.targets, dtype=np.int64), tuple(p.classes)) for p in parts]
    return Splits(tables[0], test=tables[1])
