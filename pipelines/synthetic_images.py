"""Synthetic images as training rows: of a synthesis folder, of its shards, or of any folder of class folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from generators.image_files import folder_name
from generators.manifest import KEPT, Row, read_manifest, rows_by_class
from generators.shards import read_shards, shard_files
from pipelines.config import TrainConfig
from pipelines.config_groups import DataConfig
from pipelines.console import log
from pipelines.loading import DecodedTable, open_table
from rebalance.counts import IntArray, class_counts
from rebalance.data.decoding import decode
from rebalance.data.folders import read_classes
from rebalance.data.table import ByteArray, ImageTable
from rebalance.errors import InputError, nearest
from rebalance.files import read_json
from rebalance.ranks import derive_seed


def open_synthetic(
    config: TrainConfig, data: DataConfig, real: ImageTable, size: int, device: torch.device
) -> DecodedTable | None:
    """The images of `config.synthetic` that `config.synthetic_set` names, decoded; None without a folder or images.

    Raises:
        InputError: No such folder, a manifest that was tampered with, or a class that the data lack.
    """
    if config.synthetic is None:
        return None
    table = _table(config.synthetic, config.synthetic_set, real, config.seed, size, data.cache_gb)
    if len(table) == 0:
        log.warning("%s has no synthetic images to train on", config.synthetic)
        return None
    return open_table(table, size, data, device, "synthetic images")


def repeat_warnings(folder: Path | None) -> None:
    """Say again what a synthesis said of its images."""
    file = None if folder is None else folder / "metrics.json"
    if file is not None and file.exists():
        for words in read_json(file).get("warnings", ()):
            log.warning("%s: %s", folder, words)


def of_other_splits(folder: Path, fingerprint: str) -> bool:
    """Whether a synthesis saw other images than training does, perhaps some that are held out here; then it is said."""
    file = folder / "classes.json"
    if not file.exists() or read_json(file).get("fingerprint", fingerprint) == fingerprint:
        return False
    log.warning(
        "%s was synthesized from other splits than these: if they hold out images that its generator saw, figures on "
        "those are too good. Synthesize with the same data options, such as --test-fraction",
        folder,
    )
    return True


def taken_either_way(folder: Path) -> dict[str, int] | None:
    """How many images of each class of a synthesis are taken, the same ones kept or unfiltered; None if they differ."""
    rows = read_manifest(folder)
    kept = _left(folder, [row for row in rows if row["verdict"] == KEPT])
    counts = {row["class"]: 0 for row in rows} | Counter(row["class"] for row in kept)
    return counts if {row["job"] for row in kept} == {row["job"] for row in _first(rows, counts)} else None


def _table(folder: Path, which: str, real: ImageTable, seed: int, size: int, cache_gb: float) -> ImageTable:
    if not folder.is_dir():
        raise InputError(
            "a folder of synthetic images", f"no such folder: {folder}", "run `rebalance synthesize` first"
        )
    if not (folder / "manifest.jsonl").exists():
        if which == "unfiltered":
            raise InputError(
                "a folder of `rebalance synthesize` for unfiltered images",
                f"{folder}, without manifest.jsonl",
                "use kept",
            )
        shards = shard_files(folder)
        table = _from_shards(shards, real.classes, size, cache_gb) if shards else _from_folders(folder, real.classes)
        return table if which == "kept" else _replay(real, table.counts, seed)
    rows = read_manifest(folder)
    ids = {name: label for label, name in enumerate(real.classes)}
    for row in rows:
        if row["class"] not in ids:
            raise InputError("classes of the training data", repr(row["class"]), nearest(row["class"], real.classes))
    kept = _not_removed(folder, [row for row in rows if row["verdict"] == KEPT])
    counts = class_counts([ids[row["class"]] for row in kept], len(real.classes))
    if which == "kept":
        return _from_rows(folder, kept, real.classes)
    if which == "replay":
        return _replay(real, counts, seed)
    return _from_rows(folder, _first(rows, dict(zip(real.classes, counts.tolist(), strict=True))), real.classes)


def _not_removed(folder: Path, kept: list[Row]) -> list[Row]:
    """The kept images that are still there; what was taken out by hand is said."""
    left = _left(folder, kept)
    if len(left) < len(kept):
        log.info("%d synthetic images were removed from %s and are left out", len(kept) - len(left), folder / "images")
    return left


def _left(folder: Path, kept: list[Row]) -> list[Row]:
    """The kept images that are still in images/, where there is one: what was taken out of it by hand is left out."""
    if not (folder / "images").is_dir():
        return kept
    return [row for row in kept if (folder / "images" / Path(*Path(row["path"]).parts[1:])).exists()]


def _from_folders(folder: Path, classes: tuple[str, ...]) -> ImageTable:
    """The images of class folders, under the name that `rebalance synthesize` gives a folder or the class's own."""
    names = [folder_name(name) if (folder / folder_name(name)).is_dir() else name for name in classes]
    return replace(read_classes(folder, tuple(names)), classes=classes)


def _from_shards(files: Sequence[Path], classes: tuple[str, ...], size: int, cache_gb: float) -> ImageTable:
    """The images of shards, decoded: the members of a tar file cannot be read in any order at once."""
    images: list[ByteArray] = []
    targets: list[int] = []
    ids = {name: label for label, name in enumerate(classes)}
    for name, pixels in read_shards(files):
        if name not in ids:
            raise InputError("classes of the training data", repr(name), nearest(name, classes))
        images.append(decode(pixels, size))
        targets.append(ids[name])
        if len(images) * 3 * size**2 > cache_gb * 1e9:
            raise InputError(
                f"shards whose images fit in {cache_gb:g} GB (--cache-gb)",
                f"more than {len(images)} images of {size} px",
                "raise --cache-gb, or name the folder that `rebalance synthesize` wrote, with its manifest",
            )
    return ImageTable(images, np.array(targets, dtype=np.int64), classes)


def _first(rows: list[Row], counts: dict[str, int]) -> list[Row]:
    """Of each class the first candidates that were made, as many as were kept."""
    chosen: list[Row] = []
    made = rows_by_class([row for row in rows if row["path"] is not None], list(counts))
    for name, n in counts.items():
        chosen += sorted(made[name], key=lambda row: int(row["index"]))[:n]
    return chosen


def _from_rows(folder: Path, rows: list[Row], classes: tuple[str, ...]) -> ImageTable:
    ids = {name: label for label, name in enumerate(classes)}
    ordered = sorted(rows, key=lambda row: (ids[row["class"]], int(row["index"])))
    targets = np.array([ids[row["class"]] for row in ordered], dtype=np.int64)
    return ImageTable([str(folder / row["path"]) for row in ordered], targets, classes)


def _replay(real: ImageTable, counts: IntArray, seed: int) -> ImageTable:
    """Real images again: of each class `counts[c]`, every one of them as often as the others or once more."""
    rows = [np.zeros(0, dtype=np.int64)]
    for label, n in enumerate(counts):
        members = np.flatnonzero(real.targets == label)
        stream = np.random.default_rng(derive_seed(seed, label))
        cycles = [stream.permutation(members) for _ in range(-(-int(n) // len(members)))]
        rows += [cycle[: int(n) - i * len(members)] for i, cycle in enumerate(cycles)]
    return real.select(np.concatenate(rows))
