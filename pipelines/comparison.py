"""Arms against one another: means with a t interval, differences paired by seed, and what they say in plain words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import t as student

from rebalance.counts import GROUPS
from rebalance.metrics import headline

_FEWEST_SEEDS = 3
"""For a judgement: of two, an interval is mostly a matter of luck."""
CONFIDENCE = 0.95
ARM_TITLES = {
    "ce": "plain cross entropy",
    "rebalanced": "re-balanced",
    "replay": "re-balanced + replay",
    "unfiltered": "re-balanced + synthetic, unfiltered",
    "synthetic": "re-balanced + synthetic, filtered",
    "feedback": "re-balanced + synthetic, in rounds",
}
METRIC_TITLES = {
    "balanced_accuracy": "balanced accuracy",
    "many_shot": "many-shot",
    "medium_shot": "medium-shot",
    "few_shot": "few-shot",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "g_mean": "g-mean",
    "worst_class": "worst class",
    "ece": "ECE",
}
_COMPARED = (
    ("rebalanced", "ce"),
    ("replay", "rebalanced"),
    ("synthetic", "rebalanced"),
    ("synthetic", "replay"),
    ("synthetic", "unfiltered"),
    ("feedback", "synthetic"),
)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Args:
        mean: In [0, 1], or a difference of such.
        half_width: Of the 95 % t interval; None with fewer than three seeds, which tell next to nothing of it.
        n: Seeds.
    """

    mean: float
    half_width: float | None
    n: int

    def percent(self, *, signed: bool = False) -> str:
        """Points, with the interval where there is one: "81.3 ± 0.7"."""
        points = round(100 * self.mean, 1) + 0.0  # never -0.0
        mean = f"{points:+.1f}" if signed else f"{points:.1f}"
        return mean if self.half_width is None else f"{mean} ± {100 * self.half_width:.1f}"


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and t interval of values, one for each seed.

    Examples:
        >>> estimate([0.8, 0.82, 0.84]).percent()
        '82.0 ± 5.0'
    """
    n = len(values)
    mean = float(np.mean(values))
    if n < _FEWEST_SEEDS:
        return Estimate(mean, None, n)
    factor = float(student.ppf(0.5 + CONFIDENCE / 2, n - 1))
    return Estimate(mean, factor * float(np.std(values, ddof=1)) / math.sqrt(n), n)


@dataclass(frozen=True)
class Comparison:
    """All arms of a run.

    Args:
        arms: Arm → metric → estimate, on the test split; a metric is missing where it is n/a.
        differences: (arm, against) → metric → estimate of the paired difference.
        titles: Arm → what it is called in words; its own name where it is missing.
        same_images: Pairs (arm, against) that were trained on the same images, so that there is nothing to compare.
    """

    arms: dict[str, dict[str, Estimate]]
    differences: dict[tuple[str, str], dict[str, Estimate]]
    titles: Mapping[str, str] = field(default_factory=lambda: ARM_TITLES)
    same_images: tuple[tuple[str, str], ...] = ()

    def words(self) -> list[str]:
        """What helped and what did not, in balanced accuracy and for the few-shot classes."""
        lines = []
        for (arm, against), metrics in self.differences.items():
            total = metrics.get("balanced_accuracy")
            if total is None:
                continue
            extra = [
                f"{METRIC_TITLES[name]} {metrics[name].percent(signed=True)}"
                for name in (f"{group}_shot" for group in GROUPS)
                if name in metrics
            ]
            groups = f" ({', '.join(extra)})" if extra else ""
            lines.append(
                f"{self.titles.get(arm, arm)} against {self.titles.get(against, against)}: "
                f"{total.percent(signed=True)} points of balanced accuracy{groups}: {_judgement(total)}."
            )
        for arm, against in self.same_images:
            lines.append(
                f"{self.titles.get(arm, arm)}: the same images as {self.titles.get(against, against)}: "
                "the gates rejected nothing that another image could replace, and one training stands for both."
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "arms": {arm: {name: vars(e) for name, e in metrics.items()} for arm, metrics in self.arms.items()},
            "differences": [
                {"arm": arm, "against": against, **{name: vars(e) for name, e in metrics.items()}}
                for (arm, against), metrics in self.differences.items()
            ],
            "same_images": [list(pair) for pair in self.same_images],
            "words": self.words(),
        }


def compare(
    results: Mapping[str, Mapping[Any, Mapping[str, Any]]],
    pairs: Sequence[tuple[str, str]] = _COMPARED,
    titles: Mapping[str, str] = ARM_TITLES,
    same_images: Collection[tuple[str, str]] = (),
) -> Comparison:
    """Compare arms.

    Args:
        results: Arm → seed → test metrics.
        pairs: (arm, against) to compare, where both are there, on the seeds that both have.
        titles: Arm → what it is called in words; its own name where it is missing.
        same_images: Pairs (arm, against) that are not compared, for they were trained on the same images.
    """
    figures = {
        arm: {seed: headline(dict(metrics)) for seed, metrics in seeds.items()} for arm, seeds in results.items()
    }
    arms = {arm: _estimates(list(seeds.values())) for arm, seeds in figures.items()}
    differences = {}
    for arm, against in pairs:
        ours, theirs = figures.get(arm, {}), figures.get(against, {})
        paired = [_difference(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
        if paired and (arm, against) not in same_images:
            differences[arm, against] = _estimates(paired)
    return Comparison(arms, differences, titles, tuple(same_images))


def _estimates(seeds: Sequence[Mapping[str, float | None]]) -> dict[str, Estimate]:
    estimates = {}
    for name in METRIC_TITLES:
        values = [figures[name] for figures in seeds]
        if all(value is not None for value in values):
            estimates[name] = estimate([float(value) for value in values if value is not None])
    return estimates


def _difference(a: Mapping[str, float | None], b: Mapping[str, float | None]) -> dict[str, float | None]:
    return {
        name: None if a[name] is None or b[name] is None else float(a[name] or 0) - float(b[name] or 0) for name in a
    }


def _judgement(difference: Estimate) -> str:
    if difference.n < _FEWEST_SEEDS:
        return f"{'one seed' if difference.n == 1 else 'two seeds'}, so no judgement"
    assert difference.half_width is not None
    if abs(difference.mean) <= difference.half_width:
        return "no clear difference"
    return "it helped" if difference.mean > 0 else "it hurt"
