"""What a pipeline trains and makes, and about how long that takes, before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipelines.arms import WITH_IMAGES, arm_config, features_run, synthesis_config
from pipelines.comparison import ARM_TITLES
from pipelines.config import RebalanceConfig, TrainConfig
from pipelines.console import print_table, say
from pipelines.open_data import OpenData
from pipelines.synthesis import check_synthesis
from pipelines.training_time import training_minutes
from pipelines.tuning import parse_candidates
from rebalance.durations import minutes_in_words


@dataclass(frozen=True)
class Part:
    """Trainings of one kind, or a synthesis.

    Args:
        title: What they are.
        number: How many.
        minutes: About how long each takes.
    """

    title: str
    number: int
    minutes: float


def plan_pipeline(
    config: RebalanceConfig, baseline: RebalanceConfig, opened: OpenData, device: torch.device, folder: Path
) -> list[Part]:
    """The trainings and syntheses that are left to do in a pipeline, each kind timed by a few steps.

    Args:
        config: Of the pipeline.
        baseline: Of its plain cross entropy.
        opened: The data.
        device: Where it runs.
        folder: Its run folder, which need not exist.
    """

    def is_done(name: str) -> bool:
        return config.place.resume and (folder / name).exists()

    def minutes_of(training: TrainConfig) -> float:
        return training_minutes(training, opened, device, folder if is_done("config.yaml") else None)

    parts = []
    of_method = 0.0
    for arm in config.arms:
        if arm == "ce":
            minutes = minutes_of(arm_config(baseline, "ce", config.seed, None))
        else:
            of_method = of_method or minutes_of(arm_config(config, arm, config.seed, None))
            minutes = of_method
        seeds = range(config.seed, config.seed + config.seeds)
        left = sum(not is_done(f"arms/{arm}/seed-{seed}/metrics.json") for seed in seeds)
        parts.append(Part(ARM_TITLES[arm], left, minutes))
    if WITH_IMAGES.keys() & set(config.arms):
        synthesis = synthesis_config(config, folder / "synthesis", features_run(config, folder))
        left = int(not is_done("synthesis/metrics.json"))
        judges = 0 if is_done("tuning/tuning.json") else _judges(config, opened)
        rounds = 0 if is_done("feedback/rounds.json") or "feedback" not in config.arms else config.rounds
        cost = check_synthesis(synthesis, opened)
        n_syntheses = left + (judges if "val" not in opened.tables else 0)
        if cost.features:
            parts.append(Part("training of the gates' features", left, cost.features))
        parts.append(Part("training of the generator", n_syntheses, cost.training))
        parts.append(Part("sampling of images", n_syntheses + (rounds > 0), cost.sampling))
        parts.append(Part("trainings to choose weight and share", judges * _candidates(config), of_method))
        parts.append(Part("trainings between rounds", max(0, rounds - 1), of_method))
    return [part for part in parts if part.number]


def show_plan(parts: Sequence[Part]) -> None:
    """The parts as a table, and their sum."""
    rows = [
        [part.title, str(part.number), *map(minutes_in_words, (part.minutes, part.number * part.minutes))]
        for part in parts
    ]
    if rows:
        print_table("what is left to do", ["", "times", "each about", "together"], rows)
    total = sum(part.number * part.minutes for part in parts)
    say(f"about {minutes_in_words(total)} in all, by a few timed steps of each" if parts else "nothing is left to do")


def _judges(config: RebalanceConfig, opened: OpenData) -> int:
    """Splits that judge the candidates of `tune`."""
    if not parse_candidates(config):
        return 0
    return 1 if "val" in opened.tables else config.tune_folds


def _candidates(config: RebalanceConfig) -> int:
    """Trainings for each of these splits: the candidates, and one without images."""
    return len(parse_candidates(config)) + 1
