"""What a reader of a report has to know of its figures: their split, what was not compared, what they cannot show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_COARSE = 10
"""With fewer images of a class, one moves its accuracy by 10 points or more."""


def report_notes(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    split: str,
    others: Sequence[str],
    unpaired: Sequence[str],
    *,
    pipeline: bool,
) -> tuple[str, ...]:
    """Sentences for below the verdicts.

    Args:
        runs: What `metrics.json` holds of each run of each arm, the reference first.
        split: Which the figures are of.
        others: Arms with other images in their splits than the reference.
        unpaired: Arms without a seed in common with it.
        pipeline: Whether `rebalance run` made them.
    """
    reference, first = next((arm, seeds[0]) for arm, seeds in runs.items())
    support: list[int] = first[split]["support"]
    once = ", read once at the end" if pipeline else ""
    notes = [f"Figures are of the {split} split, {sum(support)} images{once}."]
    if split == "val":
        notes = ["Figures are of the validation split: there is no test split."]
    if others:
        notes.append(f"Not compared with {reference}, which has other images in its splits: {', '.join(others)}.")
    alone = {arm: [run for run in seeds if "first_stage" not in run] for arm, seeds in runs.items()}
    lengths = {arm: {run["updates"] for run in seeds if "updates" in run} for arm, seeds in alone.items()}
    if len(set().union(*lengths.values())) > 1:
        told = ", ".join(f"{arm} {' or '.join(map(str, sorted(n)))}" for arm, n in lengths.items() if n)
        notes.append(f"Not trained for equally many updates, which alone makes a difference: {told}.")
    networks = {
        arm: {f"{run['model']} at {run['image_size']} px" for run in seeds if {"model", "image_size"} <= run.keys()}
        for arm, seeds in runs.items()
    }
    if len(set().union(*networks.values())) > 1:
        told = ", ".join(f"{arm} {' or '.join(sorted(names))}" for arm, names in networks.items() if names)
        notes.append(f"Not of one network and image size, which alone makes a difference: {told}.")
    if unpaired:
        notes.append(f"Not compared with {reference}, for no seed in common: {', '.join(unpaired)}.")
    if max(map(len, runs.values())) == 1:
        again = "Repeat with --seeds 3 or more" if pipeline else "Train again with --seed 1 and --seed 2"
        notes.append(f"One seed: differences cannot be told from chance. {again}.")
    if any(run.get("synthesis_of_other_splits") for seeds in runs.values() for run in seeds):
        notes.append(
            "Some synthetic images were made from other splits than these: their generator may have seen images that "
            "are tested on here, and figures with them are then too good. Synthesize with the same data options."
        )
    if untested := support.count(0):
        have = "has" if untested == 1 else "have"
        notes.append(f"{untested} of {len(support)} classes {have} no image to judge by: accuracies leave them out.")
    if any(0 < n < _COARSE for n in support):
        notes.append(
            f"Some classes have fewer than {_COARSE} images to judge by: one image moves their accuracy by 10 points "
            "or more, which intervals over seeds do not show."
        )
    if first["selected"]["by"].startswith("balanced accuracy"):
        notes.append("The epoch was selected by balanced accuracy on the validation split.")
    return tuple(notes)
