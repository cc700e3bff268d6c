"""How good a synthesis is: generated images beside the real ones of their class, and how near they are to test images.

Everything here is reported and nothing is selected by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generators.filters import LOOSER
from generators.manifest import KEPT, REJECTED, Row, rows_by_class
from generators.neighbours import mean_distance, nearest
from generators.perceptual_hash import hamming, nearest_hash
from generators.quality import density_coverage, diversity, kid, precision_recall
from pipelines.judging import Judge, Marks, join_marks
from pipelines.loading import DecodedTable
from pipelines.open_data import OpenData
from rebalance.counts import GROUPS, Group, IntArray, shot_groups
from rebalance.data.table import ImageTable

FIGURES = ("acceptance", "kid", "kid_made", "precision", "recall", "density", "coverage", "diversity", "diversity_real")
_UNLIKE = 0.5
"""KID beyond which images as a whole do not look like the real ones: untrained generators gave 1.1 to 1.3 here, those
of the digits, which are recognised, less than 0.1."""
_MOST = 5000
"""Images of a class that are compared; beyond, the first so many."""
_BINS = 20
_SHOWN_PAIRS = 50


def add_quality(summary: dict[str, Any], judge: Judge, rows: Sequence[Row], opened: OpenData) -> dict[str, Any]:
    """`summary` with the quality of the images, and for each class whether its distance gate was loosened."""
    quality = measure_quality(judge, rows, opened.train.table, opened.tables.get("test"))
    loosened = {entry["class"] for entry in quality["classes"] if entry["loosened"]}
    classes = [{**entry, "loosened": entry["class"] in loosened} for entry in summary["classes"]]
    return {**summary, "classes": classes, "quality": quality, "warnings": _warnings(quality)}


def _warnings(quality: dict[str, Any]) -> list[str]:
    """What the user should know before believing the number of kept images."""
    distance = quality["groups"]["all"]["kid"]
    if distance is None or distance <= _UNLIKE:
        return []
    return [
        f"The kept images as a whole do not look like the real ones: KID {distance:.2f}, where 0 is alike. Look at the "
        "contact sheets; train the generator longer, or the classifier whose features the gates use."
    ]


def measure_quality(
    judge: Judge, rows: Sequence[Row], table: ImageTable, test: DecodedTable | None = None
) -> dict[str, Any]:
    """What `metrics.json` says of a synthesis, as plain values.

    Args:
        judge: That gave the verdicts.
        rows: The manifest.
        table: The real training images.
        test: Test images, for a count of near-duplicates.
    """
    groups = shot_groups(table.counts, judge.model.description.many, judge.model.description.few)
    classes = []
    for label, (name, own) in enumerate(rows_by_class(rows, table.classes).items()):
        if own:
            classes.append({"class": name, "group": groups[label], **_of_class(judge, label, own)})
    return {
        "space": "classifier" if judge.clip is None else "CLIP",
        "gates": _gates(judge),
        "groups": {"all": _mean(classes), **{group: _mean(classes, group) for group in GROUPS}},
        "classes": classes,
        "test": None if test is None else _near_test(judge, rows, table, test),
    }


def _gates(judge: Judge) -> dict[str, Any]:
    """The limits that hold for all classes."""
    compared = judge.real.marks.hashes is not None
    return {
        "skipped": sorted(set(judge.config.skip_gate)),
        "hash_limit": judge.hash_limit if compared else None,
        "copy_limit": judge.distances.copy_limit,
        "third_class": judge.config.third_class if len(judge.members) > 2 else None,
        "text": judge.clip is not None,
    }


def _of_class(judge: Judge, label: int, rows: Sequence[Row]) -> dict[str, Any]:
    made = [row for row in rows if row["path"] is not None]
    seen = judge.candidates(made)
    is_kept = torch.tensor([row["verdict"] == KEPT for row in made], dtype=torch.bool)
    real = judge.real.measured[judge.members[label]][:_MOST]
    kept = seen.measured[is_kept][:_MOST]
    limit, usual = rows[0]["scores"]["limit"], float(judge.distances.limits[label]) * LOOSER
    return {
        "made": len(rows),
        "kept": int(is_kept.sum()),
        "acceptance": sum(row["verdict"] != REJECTED for row in rows) / len(rows),
        "kid": kid(real, kept),
        "kid_made": kid(real, seen.measured[:_MOST]),
        **_pair(("precision", "recall"), precision_recall(real, kept)),
        **_pair(("density", "coverage"), density_coverage(real, kept)),
        "diversity": diversity(kept),
        "diversity_real": diversity(real),
        "limit": limit,
        "loosened": limit > usual + 1e-6,
        "histogram": _histogram(judge, label, made, usual),
    }


def _pair(names: tuple[str, str], values: tuple[float, float] | None) -> dict[str, float | None]:
    return dict(zip(names, values or (None, None), strict=True))


def _histogram(judge: Judge, label: int, rows: Sequence[Row], usual: float) -> dict[str, list[float] | list[int]]:
    """Distances to the real images of the class: of these from one another, of kept and of rejected candidates."""
    features = judge.real.features[judge.members[label]][:_MOST]
    real = mean_distance(features, features, exclude_self=True).numpy() if len(features) > 1 else np.zeros(0)
    parts = {
        "real": real,
        "kept": np.array([row["scores"]["distance"] for row in rows if row["verdict"] == KEPT]),
        "rejected": np.array([row["scores"]["distance"] for row in rows if row["verdict"] == REJECTED]),
    }
    top = max(usual, *(float(values.max(initial=0.0)) for values in parts.values()), 1e-6)
    edges = np.linspace(0, top * 1.001, _BINS + 1)
    counts = {name: np.histogram(values, edges)[0].tolist() for name, values in parts.items()}
    return {"edges": [round(float(edge), 6) for edge in edges], **counts}


def _mean(classes: Sequence[dict[str, Any]], group: Group | None = None) -> dict[str, Any]:
    """Means over the classes of a group that a figure is defined for."""
    own = [entry for entry in classes if group is None or entry["group"] == group]
    means: dict[str, Any] = {
        "classes": len(own),
        "made": sum(e["made"] for e in own),
        "kept": sum(e["kept"] for e in own),
    }
    for name in FIGURES:
        known = [entry[name] for entry in own if entry[name] is not None]
        means[name] = float(np.mean(known)) if known else None
    return means


def _near_test(judge: Judge, rows: Sequence[Row], table: ImageTable, test: DecodedTable) -> dict[str, Any]:
    """Kept images that are nearly a test image, and as a yardstick how many real training images are."""
    count = len(test.table)
    parts = np.array_split(np.arange(count, dtype=np.int64), -(-count // 1024))
    marks = join_marks([judge.marks(images) for images in test.store.batches(parts)])
    kept = [row for row in rows if row["verdict"] == KEPT]
    labels = np.array([row["label"] for row in kept], dtype=np.int64)
    near = near_duplicates(judge.candidates(kept).marks, labels, marks, test.table.targets, judge)
    real = near_duplicates(judge.real.marks, table.targets, marks, test.table.targets, judge)
    pairs = [{"job": kept[i]["job"], "class": kept[i]["class"], "test": test.table.name(j)} for i, j in near.items()]
    return {
        "images": count,
        "kept": len(kept),
        "near": len(near),
        "real": len(table),
        "real_near": len(real),
        "pairs": pairs[:_SHOWN_PAIRS],
    }


def near_duplicates(
    queries: Marks, query_labels: IntArray, references: Marks, labels: IntArray, judge: Judge
) -> dict[int, int]:
    """Queries that are nearly a reference, by the limits of the gates → that reference.

    Equal pixels and near hashes count whatever the class, near pixels within it.
    """
    rows = {digest: row for row, digest in reversed(list(enumerate(references.digests)))}
    found = {i: rows[digest] for i, digest in enumerate(queries.digests) if digest in rows}
    for label in np.unique(query_labels).tolist():
        own, others = np.flatnonzero(query_labels == label), np.flatnonzero(labels == label)
        flat = _unit(references.pixels[others])
        for pixels in (queries.pixels[own], queries.pixels[own].flip(3)):
            gaps, row = nearest(_unit(pixels), flat)
            for i in (gaps <= judge.distances.copy_limit).nonzero()[:, 0].tolist():
                found.setdefault(int(own[i]), int(others[row[i]]))
    if queries.hashes is not None and references.hashes is not None:
        known = references.hashes[0]
        for hashes in queries.hashes:
            for i in (nearest_hash(hashes, known) <= judge.hash_limit).nonzero()[:, 0].tolist():
                found.setdefault(i, int(hamming(hashes[i : i + 1], known).argmin()))
    return dict(sorted(found.items()))


def _unit(pixels: Tensor) -> Tensor:
    """uint8 images as vectors in [0, 1]."""
    return pixels.flatten(1).float() / 255
