"""What is on images, by a trained run: the most probable classes of each, in a CSV file."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.checked_settings import check_config
from pipelines.config_use import PredictConfig
from pipelines.console import log, print_table, progress_bar, say
from pipelines.csv_targets import check_csv
from pipelines.model_files import TrainedClassifier, load_model
from pipelines.ranges import refuse_below
from pipelines.runs import slug
from pipelines.session import start_session
from rebalance.counts import FloatArray, IntArray
from rebalance.data.augmentation import normalize
from rebalance.data.image_files import find_images
from rebalance.data.store import SHOWN_FAILURES, readable_rows
from rebalance.data.stream import stream_images
from rebalance.errors import InputError
from rebalance.files import write_csv
from rebalance.plurals import counted
from rebalance.predictions import Predictions
from rebalance.ranks import gather, is_main, shard, sum_over_ranks

_SHOWN = 20
"""Images in the table; beyond, it is of the classes."""


@dataclass(frozen=True)
class PredictedImages:
    """What a classifier says of images.

    Args:
        file: Where it is written.
        classes: Class names, by id.
        paths: Files of the images, N of them, in the order they were found.
        predictions: Class ids (N, K), the most probable first.
        probabilities: Likewise.
        skipped: File → reason, for images that could not be read.
    """

    file: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    predictions: IntArray
    probabilities: FloatArray
    skipped: dict[str, str]

    def __repr__(self) -> str:
        images, classes = counted(len(self.paths), "image"), len(self.classes)
        return f"PredictedImages({images} of {classes} classes: {self.file})"

    @property
    def columns(self) -> list[str]:
        """Of the file: path, prediction, probability, prediction_2, probability_2, …."""
        places = ["", *(f"_{place}" for place in range(2, self.predictions.shape[1] + 1))]
        return ["path", *(f"{name}{place}" for place in places for name in ("prediction", "probability"))]

    def rows(self) -> Iterator[list[Any]]:
        """Of the file: path, class name, probability and so on, as `columns` says."""
        for path, labels, values in zip(
            self.paths, self.predictions.tolist(), self.probabilities.tolist(), strict=True
        ):
            pairs = zip(labels, values, strict=True)
            yield [path, *(part for label, value in pairs for part in (self.classes[label], value))]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        images = [dict(zip(self.columns, row, strict=True)) for row in self.rows()]
        return {"file": str(self.file), "images": images, "skipped": self.skipped}


def predict(config: PredictConfig) -> PredictedImages:
    """Classify images by a run's `model/` and write the file; every image is decoded once, none is kept.

    Raises:
        InputError: No run, no such images, images that cannot be read, or a file that cannot be written.
        RunError: Outputs that are not finite.
    """
    check_config(config, PredictConfig)
    refuse_below(1, {"--batch-size": config.batch_size, "--top": config.top})
    refuse_below(0, {"--workers": config.workers})
    images, notes = find_images(config.images)
    file = config.out or _default_file(config)
    check_csv("--out", file)
    model = load_model(config.run)
    if config.top > len(model.classes):
        raise InputError(f"--top of at most {len(model.classes)}, the classes", str(config.top), "take a smaller one")
    for note in notes:
        log.info("%s", note)
    predictions, failures = _predict(model, images, config)
    rows = readable_rows(len(images), failures, config.skip_corrupt)
    made = PredictedImages(
        file=file,
        classes=model.classes,
        paths=tuple(images[row] for row in rows),
        predictions=predictions.classes()[rows],
        probabilities=predictions.probabilities()[rows],
        skipped={images[row]: reason for row, reason in failures.items()},
    )
    if is_main():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_csv(file, made.columns, ([_short(part) for part in row] for row in made.rows()))
    return made


def _predict(
    model: TrainedClassifier, images: Sequence[str], config: PredictConfig
) -> tuple[Predictions, dict[int, str]]:
    """The predictions, and row → reason for images that cannot be read; every rank takes its rows and gets all."""
    device = start_session(config.device).device
    model.to(device)
    found = Predictions(len(images), device, top=config.top)
    own: dict[int, str] = {}
    rows = shard(np.arange(len(images), dtype=np.int64))
    batches = stream_images(
        images, rows, model.image_size, batch_size=config.batch_size, workers=config.workers, device=device
    )
    with progress_bar(len(rows), "predicting", "images") as bar, torch.no_grad():
        for batch in batches:
            own |= batch.failures
            bar.update(len(batch.rows) + len(batch.failures))
            if len(batch.rows) and (config.skip_corrupt or not own):  # else only to name what cannot be read
                found.update(batch.rows, model.classifier(normalize(batch.images, model.mean, model.std)))
    sum_over_ranks(found.state())
    return found, dict(sorted(item for failures in gather(own) for item in failures.items()))


def _default_file(config: PredictConfig) -> Path:
    """Named for run and first images, and for what tells them from others that are called so too."""
    run = config.run.resolve()
    places = [run.parent if run.name == "model" else run, *(path.resolve() for path in config.images)]
    which = hashlib.sha256("\n".join(map(str, places)).encode(errors="surrogateescape"))
    name = f"{_name(config.run)}-{_name(config.images[0])}-{which.hexdigest()[:6]}.csv"
    return Path("runs") / "predict" / name


def _name(path: Path) -> str:
    """What to call a run or images in the name of a file."""
    path = path.resolve()
    return slug(str(path.parent if path.name == "model" else path))


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def predict_command(config: PredictConfig) -> None:
    """`rebalance predict`: say where the file is, and show the images, or of many the classes."""
    made = predict(config)
    if made.skipped:
        n = len(made.paths) + len(made.skipped)
        log.warning("%d of %d images cannot be read and are left out", len(made.skipped), n)
        for reason in list(made.skipped.values())[:SHOWN_FAILURES]:
            log.warning("  %s", reason)
    if config.json:
        say(json.dumps(made.to_dict(), indent=2, ensure_ascii=False))
        return
    images = counted(len(made.paths), "image")
    title = f"{config.run}: {images} → {made.file}"
    if len(made.paths) <= _SHOWN:
        columns = [name.replace("probability", "%").replace("_", " ") for name in made.columns]
        print_table(title, columns, [[_percent(part) for part in row] for row in made.rows()])
    else:
        print_table(title, ["class", "images", "share", "mean probability, %"], _class_rows(made)[:_SHOWN])
    log.info("%s: %s", images, made.file)


def _percent(part: Any) -> str:
    return f"{100 * part:.1f}" if isinstance(part, float) else str(part)


def _class_rows(made: PredictedImages) -> list[list[str]]:
    """Name, images, share and mean probability of the classes that were predicted, the most frequent first."""
    first, values = made.predictions[:, 0], made.probabilities[:, 0]
    rows = []
    for label, n in Counter(first.tolist()).most_common():
        mean = float(values[first == label].mean())
        rows.append([made.classes[label], str(n), f"{n / len(first):.1%}", _percent(mean)])
    return rows
