"""Arms of a pipeline that take the same images: one training stands for both."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from pipelines.config import Arm, TrainConfig
from pipelines.config_files import to_yaml
from pipelines.runs import LOCK
from pipelines.synthetic_images import taken_either_way
from rebalance.files import read_json, write_text
from rebalance.ranks import barrier, is_main

ALIKE: dict[Arm, Arm] = {"synthetic": "unfiltered", "unfiltered": "synthetic"}
"""Arm → the arm that takes the same images where the gates have changed nothing."""


def same_images(arms: Collection[Arm], images: Path) -> dict[str, int] | None:
    """How many images of each class all of `ALIKE` take, where they take the same ones of a synthesis.

    Args:
        arms: Of the pipeline.
        images: The folder of its synthesis.
    """
    return taken_either_way(images) if {*ALIKE} <= {*arms} else None


def pairs_on_the_same(run: Path, arms: Collection[Arm], seeds: Iterable[int], images: Path) -> list[tuple[str, str]]:
    """Pairs (arm, against) whose trainings, all of them, took the same images.

    Args:
        run: The folder of the pipeline, with all trainings finished.
        arms: Of the pipeline.
        seeds: Of the trainings.
        images: The folder of its synthesis.
    """
    taken = same_images(arms, images)
    folders = [run / "arms" / arm / f"seed-{seed}" for seed in seeds for arm in ALIKE]
    same = taken is not None and all(_took(folder, taken) for folder in folders)
    return [("synthetic", "unfiltered")] if same else []


def copy_training(source: Path, folder: Path, config: TrainConfig, taken: Mapping[str, int]) -> bool:
    """Make a finished training that of an arm on the same images, unless that was begun before; whether it was made.

    Args:
        source: The folder of the training.
        folder: That of the arm.
        config: With which the arm would be trained.
        taken: How many images of each class it would take. A training that took others, before images were taken out
            by hand, is none on the same.
    """
    copies = not folder.exists() and _took(source, taken)
    barrier()
    if is_main() and copies:
        building = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(building, ignore_errors=True)
        shutil.copytree(source, building, ignore=shutil.ignore_patterns(LOCK))
        write_text(building / "config.yaml", "command: train\n" + to_yaml(config))
        building.rename(folder)
    barrier()
    return copies


def _took(training: Path, taken: Mapping[str, int]) -> bool:
    claimed = read_json(training / "classes.json")
    took = dict(zip(claimed["classes"], claimed["synthetic_counts"], strict=True))
    return all(n == taken.get(name, 0) for name, n in took.items())
