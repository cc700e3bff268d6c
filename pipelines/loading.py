"""A data config → splits, and splits → decoded images."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow

from pipelines.config_groups import DataConfig
from pipelines.console import log, progress_bar
from pipelines.data_flags import CIFAR, is_list_file
from rebalance.counts import shot_groups
from rebalance.data.digits import read_digits
from rebalance.data.folders import read_folder
from rebalance.data.list_rows import ListFormat
from rebalance.data.lists import read_lists
from rebalance.data.splits import hold_out_test, hold_out_validation, make_long_tailed
from rebalance.data.store import ImageStore, ReadOptions, ResidentStore, WorkerStore, check_table, decode_table
from rebalance.data.table import ImageTable, Splits
from rebalance.data.torchvision_cifar import read_cifar
from rebalance.errors import InputError, quoted

DIGITS_IMBALANCE_FACTOR = 50.0
_SMALL = 64  # px; images up to this size are kept at their own size


def load_splits(config: DataConfig, *, lenient: bool = False) -> Splits:
    """The splits of a data config, cut and held out as it says; no image is decoded.

    Args:
        config: What to load.
        lenient: Leave out classes that train lacks, with a warning.

    Raises:
        InputError: Anything wrong with the data, each with what to do.
    """
    shot_groups((), config.many, config.few)  # refuses thresholds that are swapped
    splits = read_source(config, lenient=lenient)
    for name, table in splits.tables().items():
        if len(table) == 0:
            raise InputError("images in every split", f"none in {name}", "remove the empty split")
    if len(splits.classes) < 2:
        raise InputError("at least two classes", f"only {splits.classes[0]!r}", "add the images of another class")
    factor = config.imbalance_factor
    if factor is None and config.data == "digits":
        factor = DIGITS_IMBALANCE_FACTOR
    if factor is not None and factor != 1:
        splits = make_long_tailed(splits, factor, config.profile, config.subset_seed)
    if config.test_fraction:
        splits = hold_out_test(splits, config.test_fraction, config.subset_seed)
    if config.val_fraction:
        splits = hold_out_validation(splits, config.val_fraction, config.subset_seed)
    return splits


def read_source(config: DataConfig, *, lenient: bool = False) -> Splits:
    """The splits as they lie on disk, neither cut nor held out; no image is opened. `lenient` as in `load_splits`."""
    if config.data == "digits":
        return read_digits(config.subset_seed)
    path = Path(config.data)
    if config.data in CIFAR and not path.exists():
        return read_cifar(config.data, config.root or Path("data"), download=config.download)
    if is_list_file(config.data):
        form = ListFormat(config.root, config.path_column, config.label_column, config.split_column)
        return read_lists(path, config.val_list, config.test_list, form, lenient=lenient)
    if path.is_file():
        raise InputError(
            "a folder of images or a list file (.txt, .csv, .tsv)", f"the file {path}", "give one of the two"
        )
    return read_folder(path, lenient=lenient)


def check_every_class(table: ImageTable) -> None:
    """Refuse classes without an image.

    Raises:
        InputError: There are such.
    """
    empty = [name for name, n in zip(table.classes, table.counts, strict=True) if not n]
    if empty:
        raise InputError(
            "at least one image in every class",
            f"0 images of {quoted(empty)}",
            "remove the class or add an image of it" if len(empty) == 1 else "remove the classes or add images of them",
        )


def image_size(config: DataConfig, table: ImageTable) -> int:
    """Height and width that images are brought to, px: as configured, or the usual size of small images, or 224."""
    if config.image_size is not None:
        if config.image_size < 8:
            raise InputError("an image size of at least 8 px", str(config.image_size), "use --image-size 32, say")
        return config.image_size
    sizes: Counter[int] = Counter()
    for row in np.unique(np.linspace(0, len(table) - 1, 25).astype(int)):
        image = table.images[row]
        if not isinstance(image, str):
            sizes[min(image.shape[:2])] += 1
            continue
        try:
            with Pillow.open(image) as opened:
                sizes[min(opened.size)] += 1
        except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError):
            continue  # reported when the images are read
    usual = sizes.most_common(1)[0][0] if sizes else 224
    return max(usual, 8) if usual <= _SMALL else 224


@dataclass(frozen=True)
class DecodedTable:
    """A table and its images.

    Args:
        table: The rows that could be read.
        store: Their images.
        skipped: Names of images that could not be read.
    """

    table: ImageTable
    store: ImageStore
    skipped: tuple[str, ...] = ()


def open_table(
    table: ImageTable, size: int, config: DataConfig, device: torch.device, what: str = "images"
) -> DecodedTable:
    """Decode `table` into memory, or check it and leave the decoding to workers, by `config.cache_gb`."""
    resident = len(table) * 3 * size * size <= config.cache_gb * 1e9
    with progress_bar(len(table), f"reading {what}", "images") as bar:
        options = ReadOptions(config.workers, config.skip_corrupt, bar.update)
        if resident:
            images, rows = decode_table(table, size, options)
        else:
            rows = check_table(table, size, options)
    skipped = tuple(table.name(row) for row in np.setdiff1d(np.arange(len(table)), rows))
    if skipped:
        log.warning("%d of %d %s cannot be read and are left out", len(skipped), len(table), what)
        table = table.select(rows)
    store: ImageStore
    if resident:
        store = ResidentStore(images.to(device))
    else:
        store = WorkerStore(table, size, workers=config.workers, device=device)
    return DecodedTable(table, store, skipped)


def open_splits(
    splits: Splits, size: int, config: DataConfig, device: torch.device, names: tuple[str, ...]
) -> dict[str, DecodedTable]:
    """`open_table` for the named splits that exist."""
    tables = splits.tables()
    return {name: open_table(tables[name], size, config, device, f"{name} images") for name in names if name in tables}


def with_default_test(config: DataConfig, splits: Splits, fraction: float = 0.2) -> tuple[DataConfig, Splits]:
    """Hold out a test split where the data have none and the config asks for none."""
    if splits.test is not None:
        return config, splits
    return replace(config, test_fraction=fraction), hold_out_test(splits, fraction, config.subset_seed)


def fingerprint(splits: Splits) -> str:
    """Hash of which images are in which class of which split, by name and size on disk; no image is decoded."""
    digest = hashlib.sha256()
    for split, table in splits.tables().items():
        digest.update(split.encode())
        for image, target in zip(table.images, table.targets, strict=True):
            content = f"{Path(image).name} {_size_on_disk(image)}".encode() if isinstance(image, str) else image
            digest.update(content if isinstance(content, bytes) else content.tobytes())
            digest.update(int(target).to_bytes(4, "little"))
    return digest.hexdigest()


def _size_on_disk(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # a link to nowhere, which --skip-corrupt leaves out
        return 0
