"""Arms of a pipeline that take the same images: one training stands for both."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from pipelines.config import Arm, TrainConfig
from pipelines.config_files import to_yaml
from pipelines.runs import LOCK
from pipelines.synthetic_images import takes_the_same
from rebalance.files import write_text
from rebalance.ranks import barrier, is_main

ALIKE: dict[Arm, Arm] = {"synthetic": "unfiltered", "unfiltered": "synthetic"}
"""Arm → the arm that takes the same images where the gates have changed nothing."""


def same_images(arms: Collection[Arm], images: Path) -> list[tuple[str, str]]:
    """Pairs (arm, against) of `arms` that take the same images of a synthesis.

    Args:
        arms: Of the pipeline.
        images: The folder of its synthesis.
    """
    return [("synthetic", "unfiltered")] if {*ALIKE} <= {*arms} and takes_the_same(images) else []


def copy_training(source: Path, folder: Path, config: TrainConfig) -> None:
    """Make a finished training that of an arm on the same images, unless that was begun before.

    Args:
        source: The folder of the training.
        folder: That of the arm.
        config: With which the arm would be trained.
    """
    if is_main() and not folder.exists():
        building = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(building, ignore_errors=True)
        shutil.copytree(source, building, ignore=shutil.ignore_patterns(LOCK))
        write_text(building / "config.yaml", "command: train\n" + to_yaml(config))
        building.rename(folder)
    barrier()
