"""Write a list of the training images that re-balances them by repeating and leaving out files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.checked_settings import check_config
from pipelines.config import ResampleConfig
from pipelines.console import log, print_table, progress_bar, say
from pipelines.csv_targets import check_csv, refuse_sources
from pipelines.data_flags import CIFAR, check_data, refuse_pixel_settings
from pipelines.loading import check_every_class, load_splits
from pipelines.ranges import refuse_below
from pipelines.runs import slug
from rebalance.counts import Group, IntArray, shot_groups
from rebalance.data.lists import list_text, root_beyond
from rebalance.data.store import ReadOptions, unreadable_images
from rebalance.data.table import ImageTable
from rebalance.errors import InputError
from rebalance.files import write_text
from rebalance.resampling import EffectiveNumberSampler, FillSampler, InverseFrequencySampler
from rebalance.weights import class_weights, draw_shares

_LONGEST = 100_000_000
_LARGEST_SEED = 2**32 - 1
"""Of NumPy's RandomState."""


@dataclass(frozen=True)
class ResampledList:
    """A list of files, and what it makes of the classes.

    Args:
        file: Where it is.
        classes: Class names, by id.
        counts: Training images of each class.
        rows: Rows of each class in the list.
        used: Images of each class that are in the list at least once.
        most_often: How often the most frequent image of each class is in the list.
        groups: Many, medium or few, by the training images of each class.
        splits: Images of each split, with `skip_corrupt` the readable ones; those beside train are not in the list.
        held_out: Lists of the validation and the test split, as they are, by split.
        root: Folder to read the lists with, `--root`, where images lie outside the folder of the list.
        notes: What was done to the data before.
    """

    file: Path
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    rows: tuple[int, ...]
    used: tuple[int, ...]
    most_often: tuple[int, ...]
    groups: tuple[Group, ...]
    splits: dict[str, int]
    held_out: dict[str, Path]
    root: Path | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        held_out = {split: str(file) for split, file in self.held_out.items()}
        return values | {
            "file": str(self.file),
            "held_out": held_out,
            "root": None if self.root is None else str(self.root),
        }

    @property
    def training(self) -> str:
        """The command that trains on the list."""
        words = ["rebalance", "train", str(self.file)]
        for split, file in self.held_out.items():
            words += [f"--{split}-list", str(file)]
        return shlex.join(words if self.root is None else [*words, "--root", str(self.root)])


def resample(config: ResampleConfig) -> ResampledList:
    """Write the list. Images of the validation and the test split never enter it.

    Raises:
        InputError: Data that have no files, a class that has no image or would get no row, a number out of range, or a
            list that the data are read from as the file to write.
    """
    check_config(config, ResampleConfig)
    file = config.out or Path("runs") / "resample" / f"{slug(config.data.data)}.csv"
    _check(config, file)
    splits = load_splits(config.data)
    for warning in splits.warnings:
        log.warning("warning: %s", warning)
    tables = _readable(splits.tables(), config)
    train = tables["train"]
    check_every_class(train)
    images = {name: len(table) for name, table in tables.items()}
    rows = resampled_rows(train.targets, train.classes, config)
    tables["train"] = train.select(rows)
    files = {name: file if name == "train" else file.with_suffix(f".{name}.csv") for name in tables}
    root = root_beyond(file.parent, list(tables.values()))
    texts = {name: list_text(table, file.parent if root is None else None) for name, table in tables.items()}
    refuse_sources("--out", config.data, [path for name, path in files.items() if not _holds(path, texts[name])])
    file.parent.mkdir(parents=True, exist_ok=True)
    for name in sorted(files, key=lambda name: name == "train"):
        write_text(files[name], texts[name])
    _tell_of_earlier(config, file, files)
    often = np.bincount(rows, minlength=len(train))
    members = [often[train.targets == label] for label in range(len(train.classes))]
    return ResampledList(
        file=file,
        classes=train.classes,
        counts=tuple(train.counts.tolist()),
        rows=tuple(tables["train"].counts.tolist()),
        used=tuple(int((times > 0).sum()) for times in members),
        most_often=tuple(int(times.max()) for times in members),
        groups=tuple(shot_groups(train.counts, config.data.many, config.data.few)),
        splits=images,
        held_out={name: path for name, path in files.items() if name != "train"},
        root=root,
        notes=splits.notes,
    )


def resampled_rows(targets: IntArray, classes: Sequence[str], config: ResampleConfig) -> IntArray:
    """The rows of the list, by the samplers of `rebalance.resampling`.

    n rows with the shares s_c of the rule are n·s_c of each class: n is the number of images for "same", the least
    that leaves out no image for "fill", max n_c / s_c, and the most that repeats none for "cut", min n_c / s_c.

    Args:
        targets: Class ids (N,), of every class at least one.
        classes: Class names.
        config: Rule and length.

    Raises:
        InputError: A class that would get no row, or too many rows.
    """
    counts = np.bincount(targets, minlength=len(classes))
    beta: Any = "auto" if config.cb_beta is None else config.cb_beta
    shares = draw_shares(counts, class_weights(counts, config.rule, strength=config.strength, cb_beta=beta))
    with np.errstate(divide="ignore"):
        lengths = counts / shares
    # a hair above what is exact, since 11.999… rows are 12
    wanted = {"fill": lengths.max(), "same": len(targets), "cut": lengths.min() * (1 + 1e-12)}[config.rows]
    if wanted > _LONGEST:
        raise InputError(
            f"a list of at most {_LONGEST:,} rows", f"{wanted:,.0f}", "lower --strength, or take another --rows"
        )
    sampler: Any
    if config.rows == "fill":
        filled = np.maximum(np.rint(shares * wanted), counts).astype(np.int64)
        sampler = FillSampler(sampling_strategy=dict(enumerate(filled.tolist())), random_state=config.seed)
    elif config.rule == "effective-number":
        sampler = EffectiveNumberSampler(
            cb_beta=beta, exponent=config.strength, n_samples=int(wanted), random_state=config.seed
        )
    else:
        exponent = config.strength / 2 if config.rule == "sqrt-inverse" else config.strength
        sampler = InverseFrequencySampler(exponent=exponent, n_samples=int(wanted), random_state=config.seed)
    sampler.fit_resample(np.arange(len(targets))[:, None], targets)
    rows: IntArray = sampler.sample_indices_
    lost = np.flatnonzero(np.bincount(targets[rows], minlength=len(classes)) == 0)
    if lost.size:
        raise InputError(
            "a row of every class", f"none of {classes[int(lost[0])]!r}", "lower --strength, or take --rows fill"
        )
    return rows


def _check(config: ResampleConfig, file: Path) -> None:
    check_csv("--out", file)
    refuse_below(0, {"--strength": config.strength, "--seed": config.seed})
    if config.seed > _LARGEST_SEED:
        raise InputError(f"--seed of at most {_LARGEST_SEED}", str(config.seed), "take a smaller one")
    if config.cb_beta is not None and config.rule != "effective-number":
        raise InputError("--rule effective-number with --cb-beta", f"--rule {config.rule}", "leave out one of the two")
    name = config.data.data
    if name == "digits" or (name in CIFAR and not Path(name).exists()):
        raise InputError(
            "images that lie in files of their own",
            f"{name}, which has none",
            f"take rebalance train {name} --sampler-rule inverse, or the samplers of rebalance.resampling on arrays",
        )
    check_data(config.data)
    refuse_pixel_settings(config.data)
    refuse_sources("--out", config.data, [file])


def _holds(file: Path, text: str) -> bool:
    """Whether a file holds what would be written to it, such as a list of an earlier call that is read again."""
    return file.is_file() and file.read_bytes() == text.encode()


def _readable(tables: dict[str, ImageTable], config: ResampleConfig) -> dict[str, ImageTable]:
    """The rows of every split, with `skip_corrupt` without those that cannot be read."""
    if not config.data.skip_corrupt:
        return tables
    readable: dict[str, ImageTable] = {}
    with progress_bar(sum(map(len, tables.values())), "reading images", "images") as bar:
        for name, table in tables.items():
            failures = unreadable_images(table, ReadOptions(config.data.workers, progress=bar.update))
            if len(failures) == len(table):
                raise InputError(f"readable {name} images", f"none of {len(table)}", "mend or replace them")
            if failures:
                log.warning("%d of %d %s images cannot be read and are left out", len(failures), len(table), name)
            readable[name] = table.select(np.setdiff1d(np.arange(len(table)), np.array(list(failures), dtype=np.int64)))
    return readable


def _tell_of_earlier(config: ResampleConfig, file: Path, files: dict[str, Path]) -> None:
    """Warn of lists that an earlier command held out beside `file`: what is in them is trained on now."""
    ours = {path.resolve() for path in (*files.values(), config.data.val_list, config.data.test_list) if path}
    for split in ("val", "test"):
        path = file.with_suffix(f".{split}.csv")
        if path.exists() and path.resolve() not in ours:
            log.warning("%s was written before: its images may be in %s now; remove it", path, file)


def resample_command(config: ResampleConfig) -> None:
    """`rebalance resample`: print the classes before and after, and how to train on the list."""
    made = resample(config)
    if config.json:
        say(json.dumps(made.to_dict(), indent=2, ensure_ascii=False))
        return
    before, after = sum(made.counts), sum(made.rows)
    figures = zip(made.classes, made.counts, made.rows, made.used, made.most_often, made.groups, strict=True)
    rows = [
        [name, str(n), f"{n / before:.1%}", group, str(new), f"{new / after:.1%}", str(used), str(often)]
        for name, n, new, used, often, group in sorted(figures, key=lambda row: -row[1])
    ]
    columns = ["class", "images", "share", "group", "rows", "new share", "images used", "most often"]
    print_table(f"{config.data.data} → {made.file}", columns, rows)
    for note in made.notes:
        log.info("%s", note)
    log.info("%d training images, %d rows: %s", before, after, made.file)
    for split, path in made.held_out.items():
        n = made.splits[split]
        log.info("the %d images of the %s split are not in it, but, as they are, in %s", n, split, path)
    log.info("to train on it: %s", made.training)
