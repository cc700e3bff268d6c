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

from pipelines.checked_settings import check_config
from pipelines.config_files import from_dict
from pipelines.config_groups import DataConfig
from pipelines.config_use import EvaluateConfig
from pipelines.console import log, say
from pipelines.csv_targets import check_csv, refuse_sources
from pipelines.data_flags import check_list_flags
from pipelines.figure_tables import print_figures
from pipelines.loading import DecodedTable, open_table, read_source
from pipelines.model_files import TrainedClassifier, load_model
from pipelines.ranges import refuse_below
from pipelines.runs import read_first_stage
from pipelines.session import start_session
from pipelines.trained_runs import images_trained_on, own_splits
from rebalance.counts import Group, IntArray, shot_groups
from rebalance.data.augmentation import normalize
from rebalance.data.folders import read_classes
from rebalance.data.table import ImageTable
from rebalance.errors import InputError, listed
from rebalance.files import write_csv
from rebalance.metrics import Tally
from rebalance.predictions import Predictions
from rebalance.ranks import is_main, shard, sum_over_ranks


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Metrics of a run's `model/` on its own test split, or on the images of `config.data`.

    With `config.predictions` also a file with a row for every image, in the order of the data.

    Raises:
        InputError: No run, no such split, a class that the model does not know, or a file that cannot be written.
    """
    check_config(config, EvaluateConfig)
    return _evaluate(config)[0]


def _groups(config: EvaluateConfig, model: TrainedClassifier) -> list[Group]:
    """Many, medium or few, by class."""
    told = model.description
    many = told.many if config.many is None else config.many
    few = told.few if config.few is None else config.few
    return shot_groups(told.train_counts, many, few)


def _evaluate(config: EvaluateConfig) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The metrics, and the names of the classes."""
    _check(config)
    session = start_session(config.device)
    model = load_model(config.run).to(session.device)
    groups = _groups(config, model)
    data, table = _table(config, model)
    if config.data is not None:
        _warn_of_training_images(config, data, table)
    file = config.predictions
    if file is not None:
        refuse_sources("--predictions", data, [file])
    decoded = open_table(table, model.image_size, data, session.device)
    found = None if file is None else Predictions(len(decoded.table), session.device)
    metrics = evaluate_table(
        model.classifier,
        decoded,
        groups,
        model.mean,
        model.std,
        session.device,
        batch_size=config.batch_size,
        predictions=found,
    )
    if file is not None and found is not None and is_main():
        _write_predictions(file, decoded.table, found)
    return metrics, model.classes


def _warn_of_training_images(config: EvaluateConfig, data: DataConfig, table: ImageTable) -> None:
    n_trained, has_test = images_trained_on(data, table, config.run)
    if n_trained:
        own = (
            f"`rebalance evaluate {config.run}` measures on what it held out" if has_test else "name a folder of others"
        )
        log.warning(
            "warning: %s was trained on %d of these %d images, and figures on them say little of new ones: %s",
            config.run,
            n_trained,
            len(table),
            own,
        )


def _write_predictions(file: Path, table: ImageTable, found: Predictions) -> None:
    """A row for every image: its path, or number where it is no file; its class, the predicted one; probabilities."""
    names = [image if isinstance(image, str) else row for row, image in enumerate(table.images)]
    labels = (table.classes[target] for target in table.targets)
    predicted = (table.classes[label] for label in found.classes()[:, 0])
    columns = {
        "path" if isinstance(names[0], str) else "row": names,
        "label": labels,
        "prediction": predicted,
        "probability": (f"{value:.6g}" for value in found.probabilities()[:, 0]),
        "label_probability": (f"{value:.6g}" for value in found.of_targets()),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_csv(file, list(columns), zip(*columns.values(), strict=True))


def _check(config: EvaluateConfig) -> None:
    refuse_below(1, {"--batch-size": config.batch_size})
    refuse_below(0, {"--workers": config.workers, "--many": config.many or 0, "--few": config.few or 0})
    if config.predictions is not None:
        check_csv("--predictions", config.predictions)
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
        raise InputError("classes that the model knows", repr(unknown[0]), f"it knows {listed(classes)}")
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
    predictions: Predictions | None = None,
) -> dict[str, Any]:
    """Metrics of `classifier` on a table, and its `predictions` where there is room for them.

    Every rank takes its rows and gets those of all.
    """
    table = decoded.table
    tally = Tally(len(table.classes), groups, device)
    rows = shard(np.arange(len(table), dtype=np.int64))
    targets = torch.from_numpy(table.targets).to(device)
    for part, logits in predict_rows(classifier, decoded, rows, mean, std, batch_size=batch_size):
        labels = targets[torch.from_numpy(part).to(device)]
        tally.update(logits, labels)
        if predictions is not None:
            predictions.update(part, logits, labels)
    sum_over_ranks([*tally.state(), *([] if predictions is None else predictions.state())])
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
    if config.predictions is not None:
        log.info("the predictions of %d images: %s", metrics["n_images"], config.predictions)
    if config.json:
        say(json.dumps(metrics, indent=2))
        return
    print_figures(f"{config.run}: {metrics['n_images']} images", metrics, classes)
