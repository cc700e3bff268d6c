"""Measure classifiers: on a split during and after training, or a run folder on any images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.config import EvaluateConfig
from pipelines.config_files import from_dict
from pipelines.config_groups import DataConfig
from pipelines.console import say
from pipelines.data_flags import check_list_flags
from pipelines.figure_tables import print_figures
from pipelines.loading import DecodedTable, open_table, read_source
from pipelines.model_files import TrainedClassifier, load_model
from pipelines.ranges import refuse_below
from pipelines.runs import read_first_stage
from pipelines.session import start_session
from pipelines.trained_runs import own_splits
from rebalance.counts import Group, IntArray
from rebalance.data.augmentation import normalize
from rebalance.data.folders import read_classes
from rebalance.data.table import ImageTable
from rebalance.errors import InputError
from rebalance.metrics import Tally
from rebalance.ranks import shard, sum_over_ranks


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Metrics of a run's `model/` on its own test split, or on the images of `config.data`.

    Raises:
        InputError: No run, no such split, or a class that the model does not know.
    """
    return _evaluate(config)[0]


def _evaluate(config: EvaluateConfig) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The metrics, and the names of the classes."""
    _check(config)
    session = start_session(config.device)
    model = load_model(config.run).to(session.device)
    data, table = _table(config, model)
    decoded = open_table(table, model.image_size, data, session.device)
    metrics = evaluate_table(
        model.classifier, decoded, model.groups, model.mean, model.std, session.device, batch_size=config.batch_size
    )
    return metrics, model.classes


def _check(config: EvaluateConfig) -> None:
    refuse_below(1, {"--batch-size": config.batch_size})
    refuse_below(0, {"--workers": config.workers})
    if config.data is not None:
        check_list_flags(_told(config, config.data))
        return
    for flag, stray in {"--root": config.root is not None, "--split-column": config.split_column != "split"}.items():
        if stray:
            raise InputError(f"DATA with {flag}", "the run alone, which knows its own", "name a list file after RUN")


def _told(config: EvaluateConfig, data: str, **lists: Any) -> DataConfig:
    """`data` with what the command line says of list files, and nothing of what the run was told."""
    columns = {name: getattr(config, name) for name in ("path_column", "label_column") if getattr(config, name)}
    return DataConfig(data=data, root=config.root, split_column=config.split_column, **columns, **lists)


def _table(config: EvaluateConfig, model: TrainedClassifier) -> tuple[DataConfig, ImageTable]:
    if config.data is not None and not (config.run / "config.yaml").exists():  # a model/ alone
        own = DataConfig(data=config.data)
    else:
        own = from_dict(DataConfig, read_first_stage(config.run)["data"])
    reading: dict[str, Any] = {
        "workers": config.workers,
        "path_column": config.path_column or own.path_column,
        "label_column": config.label_column or own.label_column,
    }
    if config.data is None:
        own = replace(own, skip_corrupt=config.skip_corrupt or own.skip_corrupt, **reading)
        data, splits = own_splits(own, config.run)
        if config.path_column or config.label_column:
            check_list_flags(_told(config, data.data, val_list=data.val_list, test_list=data.test_list))
        tables = splits.tables()
        if config.split not in tables:
            raise InputError(f"a {config.split} split", f"{data.data}, which has none", "give a folder of test images")
        table = tables[config.split]
    else:
        reading |= {"root": config.root, "split_column": config.split_column}
        data = DataConfig(data=config.data, skip_corrupt=config.skip_corrupt, **reading)
        table = _other_table(data, config.split, model.classes)
    return data, _with_classes(table, model.classes)


def _other_table(data: DataConfig, split: str, classes: tuple[str, ...]) -> ImageTable:
    """The named split of the data, or all of it where it has no splits; some of the classes are enough."""
    path = Path(data.data)
    if path.is_dir() and not any((path / name).is_dir() for name in ("train", "training")):
        inner = path / split
        return read_classes(inner if inner.is_dir() else path, classes)
    tables = read_source(data).tables()
    if len(tables) == 1:
        return tables["train"]
    if split not in tables:
        raise InputError(f"a {split} split", f"{data.data}, which has {', '.join(tables)}", "name another --split")
    return tables[split]


def _with_classes(table: ImageTable, classes: tuple[str, ...]) -> ImageTable:
    """`table` with the class ids of the model; classes without images may be any."""
    if table.classes == classes:
        return table
    unknown = [name for name, n in zip(table.classes, table.counts, strict=True) if n and name not in classes]
    if unknown:
        raise InputError("classes that the model knows", repr(unknown[0]), f"it knows {', '.join(classes)}")
    ids = np.array([classes.index(name) if name in classes else -1 for name in table.classes], dtype=np.int64)
    return replace(table, targets=ids[table.targets], classes=classes)


def evaluate_table(
    classifier: nn.Module,
    decoded: DecodedTable,
    groups: Sequence[Group],
    mean: Tensor,
    std: Tensor,
    device: torch.device,
    *,
    batch_size: int = 256,
) -> dict[str, Any]:
    """Metrics of `classifier` on a table; every rank takes its rows and gets the figures of all."""
    table = decoded.table
    tally = Tally(len(table.classes), groups, device)
    rows = shard(np.arange(len(table), dtype=np.int64))
    targets = torch.from_numpy(table.targets).to(device)
    for part, logits in predict_rows(classifier, decoded, rows, mean, std, batch_size=batch_size):
        tally.update(logits, targets[torch.from_numpy(part).to(device)])
    sum_over_ranks(tally.state())
    return tally.metrics()


def predict_rows(
    classifier: nn.Module, decoded: DecodedTable, rows: IntArray, mean: Tensor, std: Tensor, *, batch_size: int = 256
) -> Iterator[tuple[IntArray, Tensor]]:
    """Outputs of `classifier` in evaluation mode, batch by batch, with their rows."""
    was_training = classifier.training
    classifier.eval()
    parts = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    images = decoded.store.batches(parts)
    try:
        for part, batch in zip(parts, images, strict=True):
            with torch.no_grad():
                logits = classifier(normalize(batch, mean, std))
            yield part, logits
    finally:
        classifier.train(was_training)


def evaluate_command(config: EvaluateConfig) -> None:
    """`rebalance evaluate`: print the figures, as tables or as JSON."""
    metrics, classes = _evaluate(config)
    if config.json:
        say(json.dumps(metrics, indent=2))
        return
    print_figures(f"{config.run}: {metrics['n_images']} images", metrics, classes)
