"""What is known of a run that another one begins with or learns from."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.config import TrainConfig
from pipelines.config_files import from_dict, parse_pairs
from pipelines.config_groups import DataConfig
from pipelines.data_flags import CIFAR
from pipelines.loading import fingerprint, load_splits
from pipelines.loss_terms import parse_loss
from pipelines.runs import FIRST_STAGE, read_first_stage, read_run_config
from rebalance.data.table import Image, ImageTable, Splits
from rebalance.errors import InputError
from rebalance.files import read_json

_BALANCING_STAGES = ("crt", "lws", "label_aware_smoothing", "logit_adjustment")
_WITH_PRIOR = ("balanced_softmax", "balanced_mixup", "logit_adjustment", "paco", "gpaco", "bcl")


def training_of(run: Path) -> Path:
    """The folder whose `model/` the run's is: its own, or of a pipeline the training that was selected.

    Raises:
        InputError: No run folder, or a pipeline that is not finished.
    """
    saved = read_run_config(run)
    if saved["command"] != "run":
        return run
    arm: str = _metrics(run)["selected"]["arm"]
    return run / "arms" / arm / f"seed-{saved['seed']}"


def prior_of(run: Path) -> str:
    """What of a training or second stage has the class prior in it, its teacher included; "" for nothing.

    Raises:
        InputError: It is not finished.
    """
    run = training_of(run)
    saved, metrics = read_run_config(run), _metrics(run)
    if saved.pop("command") == "retrain":
        return str(metrics.get("prior", ""))
    own = prior_in(from_dict(TrainConfig, saved))
    taught = metrics.get("teacher", {}).get("prior")
    return ", ".join(name for name in (own, taught) if name)


def prior_behind(stage: str, first: str) -> str:
    """What has the class prior in it behind a second stage of this name, of a first stage that had it in `first`."""
    if stage in _BALANCING_STAGES:
        return stage
    return first if stage == "tau_norm" else ""  # the others make a new head from the features


def own_splits(data: DataConfig, run: Path) -> tuple[DataConfig, Splits]:
    """A run's data as they are seen from here, and their splits, which must be those that it was trained on.

    Args:
        data: Of the run's config.
        run: Its folder.

    Raises:
        InputError: No such data, or images that were added, removed or changed: of those that are held out now some may
            have been trained on.
    """
    data = _as_seen_from_here(data, run)
    _check_there(data, run)
    splits, file = load_splits(data), training_of(run) / "classes.json"
    if file.exists() and read_json(file).get("fingerprint", "") not in ("", fingerprint(splits)):
        raise InputError(
            f"the images that {run} was trained on",
            f"others in {data.data}: some were added, removed or changed, or an earlier version held out others",
            "restore them, or train again; to measure on other images name their folder: rebalance evaluate RUN DATA",
        )
    return data, splits


def _as_seen_from_here(data: DataConfig, run: Path) -> DataConfig:
    """Relative paths are of the directory that the run was started in, where they are gone of this one."""
    if data.data == "digits":  # embedded, whatever lies there under this name
        return data
    there = Path(read_json(run / "environment.json").get("directory", "."))
    changes: dict[str, Any] = {}
    for name in ("data", "root", "val_list", "test_list"):
        path = getattr(data, name)
        if path is not None and (there / path).exists():
            changes[name] = type(path)(there / path)
    return replace(data, **changes)


def _check_there(data: DataConfig, run: Path) -> None:
    if data.data == "digits" or (data.data in CIFAR and not Path(data.data).exists()):
        return
    for path in (Path(data.data), data.val_list, data.test_list, data.root):
        if path is not None and not path.exists():
            file = run / (FIRST_STAGE if (run / FIRST_STAGE).exists() else "config.yaml")
            raise InputError(
                f"the data of {run} where they were",
                f"no such path: {path}, which {file} names",
                f"move them back, or link them: ln -s NEW {shlex.quote(str(path))}; to measure on a folder, wherever "
                "it is, name it: rebalance evaluate RUN DATA",
            )


def images_trained_on(data: DataConfig, table: ImageTable, run: Path) -> tuple[int, bool]:
    """How many images of a table a run was trained on, as far as that can be told, and whether it has a test split.

    Args:
        data: What the table was read from: where the run's own data are gone, it may be these under another name.
        table: The images; the same file counts, by whatever path.
        run: The folder of the run.
    """
    if not (run / "config.yaml").exists():  # a model/ alone
        return 0, False
    own = from_dict(DataConfig, read_first_stage(run)["data"])
    if own.data in ("digits", *CIFAR) or not isinstance(table.images[0], str):
        return 0, False
    claimed = training_of(run) / "classes.json"
    is_known = claimed.exists() and read_json(claimed).get("fingerprint", "") != ""
    renamed = [replace(own, data=data.data, root=data.root)] if is_known else []
    for place in (own, *renamed):
        try:
            if place is own and not _lie_under(_as_seen_from_here(own, run), table):
                continue
            _, splits = own_splits(place, run)
        except (InputError, OSError):
            continue
        trained = {_file(image) for image in splits.train.images} - {None}
        return sum(_file(image) in trained for image in table.images), splits.test is not None
    return 0, False


def _lie_under(data: DataConfig, table: ImageTable) -> bool:
    """Whether any of the images lies in the folder of the data, so that reading them is worth while."""
    source = Path(data.data)
    folder = os.path.realpath(data.root or (source if source.is_dir() else source.parent))
    return any(os.path.realpath(str(image)).startswith(f"{folder}{os.sep}") for image in table.images)


def _file(image: Image) -> tuple[int, int] | None:
    """What tells a file from all others."""
    try:
        status = os.stat(str(image))
    except OSError:
        return None
    return status.st_dev, status.st_ino


def prior_in(config: TrainConfig) -> str:
    """What of the objective has the class prior in it, so that its logits are for classes alike; "" for nothing."""
    objective = config.objective
    inner = [value for name, value in parse_pairs(objective.option, "-o").items() if name == "loss"]
    losses = [parse_loss(text).name for text in objective.loss] or [objective.recipe, *inner]
    return ", ".join(name for name in losses if name in _WITH_PRIOR)


def _metrics(run: Path) -> dict[str, Any]:
    file = run / "metrics.json"
    if not file.exists():
        raise InputError("a finished run", f"{run}, which is not", "start its command again to finish it")
    metrics: dict[str, Any] = read_json(file)
    return metrics
