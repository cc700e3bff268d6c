"""What a run leaves beside its weights: on which data it was made, and how good its classifier is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipelines.evaluation import evaluate_table
from pipelines.model_files import ModelDescription, save_model
from pipelines.open_data import OpenData
from pipelines.runs import RunFolder
from rebalance.classifier import Classifier
from rebalance.counts import IntArray
from rebalance.errors import InputError
from rebalance.files import read_json, write_json
from rebalance.ranks import barrier, is_main


def claim_data(run: RunFolder, opened: OpenData, synthetic: IntArray | None = None, **facts: str) -> None:
    """Remember in `classes.json` what the run is trained on; refuse to go on with other images.

    Args:
        run: The run folder.
        opened: The data.
        synthetic: Synthetic training images of each class, (C,); none by default.
        facts: Anything else that must not change.

    Raises:
        InputError: The folder was begun with other images.
    """
    file, counts = run / "classes.json", opened.train.table.counts
    description = {
        "classes": list(opened.classes),
        "train_counts": counts.tolist(),
        "synthetic_counts": [0] * len(counts) if synthetic is None else synthetic.astype(int).tolist(),
        "image_size": opened.size,
        "skipped": [name for table in opened.tables.values() for name in table.skipped],
        "fingerprint": opened.fingerprint,
        **facts,
    }
    if file.exists() and (found := read_json(file)) != description:
        changed = ", ".join(name for name in description if found.get(name) != description[name])
        raise InputError(
            f"the images that {run.path} was begun with",
            f"others: {changed} differ",
            "restore them, start again with --no-resume, or choose another folder (--experiment, or --out)",
        )
    if is_main():
        write_json(file, description)
    barrier()


def save_results(
    folder: Path,
    classifier: Classifier,
    description: ModelDescription,
    opened: OpenData,
    device: torch.device,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Measure a finished classifier, the test split for the first and only time; write `model/` and `metrics.json`.

    Args:
        folder: The run folder.
        classifier: Equal on all ranks.
        description: How to rebuild it.
        opened: The data.
        device: Where the classifier is.
        facts: What else `metrics.json` is to hold.

    Returns:
        What it holds.
    """
    groups = description.groups
    mean, std = torch.tensor(description.mean, device=device), torch.tensor(description.std, device=device)
    figures: dict[str, Any] = {
        split: evaluate_table(classifier, opened.tables[split], groups, mean, std, device)
        for split in ("val", "test")
        if split in opened.tables
    }
    metrics: dict[str, Any] = {**facts, "classes": list(opened.classes), "groups": groups, **figures}
    if is_main():
        save_model(folder / "model", classifier, description)
        write_json(folder / "metrics.json", metrics)
    barrier()
    return metrics
