"""Show the imbalance of a data set, and what will hurt: table, figures, picture, warnings."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import InspectConfig
from pipelines.console import log, print_table, progress_bar, say
from pipelines.data_flags import check_data
from pipelines.figures import class_distribution, save_png
from pipelines.loading import image_size, load_splits
from pipelines.runs import slug
from rebalance.counts import ImbalanceStatistics, imbalance_statistics
from rebalance.data.store import ReadOptions, unreadable_images
from rebalance.data.table import Splits, content_hash
from rebalance.errors import InputError
from rebalance.files import write_bytes

_SHOWN = 20
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
        unreadable: Images that cannot be read, with the reason.
        repeated: The same image, by content, in two splits or two classes.
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
    picture: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        values["picture"] = None if self.picture is None else str(self.picture)
        return values


def inspect(config: InspectConfig) -> Inspection:
    """Inspect a data set; writes nothing but the picture.

    Raises:
        InputError: Data that cannot be loaded at all.
    """
    picture = config.picture or Path("runs") / "inspect" / f"{slug(config.data.data)}.png"
    if picture.suffix.lower() != ".png" or picture.is_dir():
        raise InputError("--picture FILE.png", str(picture), "name a PNG file to write")
    check_data(config.data)
    splits = load_splits(config.data)
    counts = splits.train.counts
    statistics = imbalance_statistics(counts, many=config.data.many, few=config.data.few)
    unreadable, repeated = _check_files(splits, config) if config.check_files else ({}, [])
    picture.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(picture, save_png(class_distribution(splits.classes, counts, None)))
    return Inspection(
        classes=splits.classes,
        counts=tuple(counts.tolist()),
        splits={name: len(table) for name, table in splits.tables().items()},
        image_size=image_size(config.data, splits.train),
        statistics=statistics,
        notes=splits.notes,
        warnings=tuple(_warnings(splits, unreadable, repeated)),
        unreadable=unreadable,
        repeated=tuple(tuple(f"{split}/{name}: {image}" for split, name, image in group) for group in repeated),
        picture=picture,
    )


def _check_files(splits: Splits, config: InspectConfig) -> tuple[dict[str, str], list[list[_Place]]]:
    tables = splits.tables()
    unreadable: dict[str, str] = {}
    places: dict[bytes, list[_Place]] = defaultdict(list)
    with progress_bar(sum(map(len, tables.values())), "reading images", "images") as bar:
        for split, table in tables.items():
            failures = unreadable_images(table, ReadOptions(config.data.workers, progress=bar.update))
            unreadable |= {table.name(row): reason for row, reason in failures.items()}
            for row, image in enumerate(table.images):
                if row not in failures:
                    place = (split, table.classes[table.targets[row]], table.name(row))
                    places[content_hash(image)].append(place)
    repeated = [group for group in places.values() if _apart(group) or (splits.test is None and len(group) > 1)]
    return unreadable, repeated


def _apart(group: Sequence[_Place]) -> bool:
    """Whether an image is in two splits or two classes."""
    return len({(split, name) for split, name, _ in group}) > 1


def _warnings(splits: Splits, unreadable: dict[str, str], repeated: Sequence[Sequence[_Place]]) -> list[str]:
    counts = splits.train.counts
    warnings = []
    for n, word in ((0, "no training image"), (1, "one training image")):
        rows = np.flatnonzero(counts == n)
        if rows.size:
            names = ", ".join(splits.classes[i] for i in rows[:_SHOWN]) + (" …" if rows.size > _SHOWN else "")
            warnings.append(f"{rows.size} classes with {word}: {names}")
    if unreadable:
        warnings.append(f"{len(unreadable)} images cannot be read; training will refuse them without --skip-corrupt")
    across = sum(map(_apart, repeated))
    if across:
        warnings.append(f"{across} images are in two splits or two classes: figures on them mean little")
    if len(repeated) > across:
        within = len(repeated) - across
        warnings.append(f"{within} images are more than once in their class; held-out splits have all copies or none")
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
    log.info(
        "%d training images in %d classes (%s), imbalance factor %.4g, Gini %.2f",
        statistics.n_images,
        statistics.n_classes,
        ", ".join(f"{name} {n}" for name, n in found.splits.items()),
        statistics.imbalance_factor,
        statistics.gini,
    )
    for note in found.notes:
        log.info("%s", note)
    for warning in found.warnings:
        log.warning("warning: %s", warning)
    for name, reason in list(found.unreadable.items())[:_SHOWN]:
        log.warning("  cannot read %s: %s", name, reason)
    named_apart = [group for group in found.repeated if len(set(group)) > 1]  # a list may repeat a file on purpose
    for group in named_apart[:_SHOWN]:
        log.warning("  same image: %s", "; ".join(dict.fromkeys(group)))
    log.info("picture: %s", found.picture)
