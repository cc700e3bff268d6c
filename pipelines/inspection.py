"""Show the imbalance of a data set, and what will hurt: table, figures, picture, warnings."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.checked_settings import check_config
from pipelines.config import InspectConfig
from pipelines.console import log, print_table, progress_bar, say
from pipelines.data_flags import check_data
from pipelines.figures import class_distribution, save_png
from pipelines.loading import image_size, load_splits
from pipelines.runs import slug
from rebalance.counts import ImbalanceStatistics, imbalance_statistics, resolve_cb_beta
from rebalance.data.sizes import ImageSizes, image_sizes
from rebalance.data.store import ReadOptions, unreadable_images
from rebalance.data.table import ImageTable, Splits, content_hash
from rebalance.errors import InputError, quoted
from rebalance.files import write_bytes
from rebalance.plurals import counted

_SHOWN = 20
_COARSE = 10
"""With fewer test images one more or less is a tenth of a class's accuracy, or more."""
_Place = tuple[str, str, str]  # split, class, image


@dataclass(frozen=True)
class Inspection:
    """What there is to know of a data set before training on it.

    Args:
        classes: Class names, by id.
        counts: Training images of each class.
        splits: Images of each split.
        image_size: Height and width that images would be brought to, px.
        statistics: Imbalance of the training split.
        notes: What was done to the data before they were counted.
        warnings: What will hurt, in words.
        unreadable: Images that cannot be read, with the reason; with `skip_corrupt` they count nowhere else.
        repeated: The same image, by content, in two splits or two classes.
        sizes: Sizes and formats of the training images; None where the files were not looked at.
        picture: Where the picture was saved.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    splits: dict[str, int]
    image_size: int
    statistics: ImbalanceStatistics
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    unreadable: dict[str, str]
    repeated: tuple[tuple[str, ...], ...]
    sizes: ImageSizes | None = None
    picture: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        values["picture"] = None if self.picture is None else str(self.picture)
        return values


@dataclass(frozen=True)
class _Files:
    """What the files themselves say; `splits` without those that are to be left out."""

    splits: Splits
    unreadable: dict[str, str]
    repeated: list[list[_Place]]
    sizes: ImageSizes | None


def inspect(config: InspectConfig) -> Inspection:
    """Inspect a data set; writes nothing but the picture.

    Raises:
        InputError: Data that cannot be loaded at all, or `skip_corrupt` without `check_files`.
    """
    check_config(config, InspectConfig)
    picture = config.picture or Path("runs") / "inspect" / f"{slug(config.data.data)}.png"
    if picture.suffix.lower() != ".png" or picture.is_dir():
        raise InputError("--picture FILE.png", str(picture), "name a PNG file to write")
    if config.data.skip_corrupt and not config.check_files:
        raise InputError("--check-files with --skip-corrupt", "--no-check-files", "leave out one of the two")
    check_data(config.data)
    splits = load_splits(config.data, lenient=True)
    files = _check_files(splits, config) if config.check_files else _Files(splits, {}, [], None)
    splits = files.splits
    counts = splits.train.counts
    statistics = imbalance_statistics(counts, many=config.data.many, few=config.data.few)
    picture.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(picture, save_png(class_distribution(splits.classes, counts, None)))
    return Inspection(
        classes=splits.classes,
        counts=tuple(counts.tolist()),
        splits={name: len(table) for name, table in splits.tables().items()},
        image_size=image_size(config.data, splits.train),
        statistics=statistics,
        notes=splits.notes,
        warnings=tuple(_warnings(files, skipped=config.data.skip_corrupt)),
        unreadable=files.unreadable,
        repeated=tuple(tuple(f"{split}/{name}: {image}" for split, name, image in group) for group in files.repeated),
        sizes=files.sizes,
        picture=picture,
    )


def _check_files(splits: Splits, config: InspectConfig) -> _Files:
    tables = splits.tables()
    unreadable: dict[str, str] = {}
    readable: dict[str, ImageTable] = {}
    notes: list[str] = []
    places: dict[bytes, list[_Place]] = defaultdict(list)
    with progress_bar(sum(map(len, tables.values())), "reading images", "images") as bar:
        for split, table in tables.items():
            failures = unreadable_images(table, ReadOptions(config.data.workers, progress=bar.update))
            unreadable |= {table.name(row): reason for row, reason in failures.items()}
            readable[split] = table
            if failures:
                rows = np.array([row for row in range(len(table)) if row not in failures], dtype=np.int64)
                readable[split] = table.select(rows)
                notes.append(f"{len(failures)} of {counted(len(table), f'{split} image')} cannot be read: left out")
            if config.data.skip_corrupt and not len(readable[split]):
                raise InputError(f"readable {split} images", f"none of {len(table)}", "mend or replace them")
            for row, image in enumerate(table.images):
                if row not in failures:
                    place = (split, table.classes[table.targets[row]], table.name(row))
                    places[content_hash(image)].append(place)
    repeated = [group for group in places.values() if _where(group) or (splits.test is None and len(group) > 1)]
    sizes = image_sizes(readable["train"]) if len(readable["train"]) else None
    if config.data.skip_corrupt:
        parts: dict[str, Any] = {**readable}
        splits = replace(splits, **parts, notes=(*splits.notes, *notes))
    return _Files(splits, unreadable, repeated, sizes)


def _where(group: Sequence[_Place]) -> str:
    """Of what an image is in two; "" where it is in one class of one split."""
    splits, classes = ({place[i] for place in group} for i in (0, 1))
    return " and ".join(what for what, of in (("two splits", splits), ("two classes", classes)) if len(of) > 1)


def _held_out_warnings(splits: Splits) -> list[str]:
    """Classes that the validation and the test split lack, or have few images of."""
    warnings = []
    tables = {"test": splits.test, "val": splits.val}
    absent = [
        f"no {split} image of {quoted((table.classes[i] for i in np.flatnonzero(table.counts == 0)), _SHOWN)}"
        for split, table in tables.items()
        if table is not None and (table.counts == 0).any()
    ]
    if absent:
        warnings.append(", ".join(absent))
    if splits.test is not None:
        counts = splits.test.counts
        few = np.flatnonzero((counts > 0) & (counts < _COARSE))
        if few.size:
            have = counted(few.size, "class has", "classes have")
            names = quoted((splits.classes[i] for i in few), _SHOWN)
            warnings.append(f"{have} fewer than {_COARSE} test images, so that their accuracies are coarse: {names}")
    return warnings


def _warnings(files: _Files, *, skipped: bool) -> list[str]:
    splits, repeated = files.splits, files.repeated
    counts = splits.train.counts
    warnings = []
    for n, word, what in (
        (0, "no training image", "; training refuses the data: add an image, or remove the class"),
        (1, "one training image", ""),
    ):
        rows = np.flatnonzero(counts == n)
        if rows.size:
            names = quoted((splits.classes[i] for i in rows), _SHOWN)
            warnings.append(f"{counted(rows.size, 'class', 'classes')} with {word}: {names}{what}")
    warnings += [*_held_out_warnings(splits), *splits.warnings]
    if files.unreadable and not skipped:
        n_bad = counted(len(files.unreadable), "image")
        warnings.append(f"{n_bad} cannot be read; training refuses the data without --skip-corrupt")
    across = Counter(where for group in repeated if (where := _where(group)))
    if across:
        told = ", ".join(f"{counted(n, 'image is', 'images are')} in {where}" for where, n in across.items())
        warnings.append(f"{told}: figures on them mean little")
    if len(repeated) > across.total():
        are = counted(len(repeated) - across.total(), "image is", "images are")
        warnings.append(f"{are} more than once in one class; held-out splits have all copies or none")
    if splits.test is None:
        warnings.append("no test split: `rebalance run` holds out a fifth of each class")
    return warnings


def inspect_command(config: InspectConfig) -> None:
    """`rebalance inspect`: print what `inspect` found."""
    found = inspect(config)
    if config.json:
        say(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return
    statistics = found.statistics
    figures = zip(found.classes, found.counts, statistics.effective_numbers, statistics.groups, strict=True)
    rows = [
        [name, str(n), f"{n / max(statistics.n_images, 1):.1%}", f"{effective:.1f}", group]
        for name, n, effective, group in sorted(figures, key=lambda row: -row[1])
    ]
    print_table(config.data.data, ["class", "images", "share", "effective number", "group"], rows)
    log.debug(
        "effective number: what n images are worth if each adds less than the one before, (1 - β^n) / (1 - β); "
        "here β = 1 - 1 / n_max = %.4g",
        resolve_cb_beta("auto", found.counts),
    )
    log.info(
        "%d training images in %d classes (%s), imbalance factor %.4g, Gini %.2f",
        statistics.n_images,
        statistics.n_classes,
        ", ".join(f"{name} {n}" for name, n in found.splits.items()),
        statistics.imbalance_factor,
        statistics.gini,
    )
    if found.sizes is not None:
        log.info("training images are %s", found.sizes)
    for note in found.notes:
        log.info("%s", note)
    for warning in found.warnings:
        log.warning("warning: %s", warning)
    for reason in list(found.unreadable.values())[:_SHOWN]:
        log.warning("  %s", reason)
    named_apart = [group for group in found.repeated if len(set(group)) > 1]  # a list may repeat a file on purpose
    for group in named_apart[:_SHOWN]:
        log.warning("  same image: %s", "; ".join(dict.fromkeys(group)))
    log.info("picture: %s", found.picture)
