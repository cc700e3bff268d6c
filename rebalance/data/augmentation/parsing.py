"""Names → augmentations: steps joined by "+", options after ":", views separated by ","."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rebalance.data.augmentation.color import Blur, Gray, Jitter
from rebalance.data.augmentation.geometry import Crop, Cutout, Flip, ResizedCrop
from rebalance.data.augmentation.pipeline import Augmentation, MultiView, Step
from rebalance.data.augmentation.policies import AutoAugment, RandAugment, TrivialAugment
from rebalance.errors import InputError, nearest

# Step → its class, and the types of the options it takes after the name, in order.
STEPS: Final[dict[str, tuple[Callable[..., Step], tuple[type[int] | type[float], ...]]]] = {
    "crop": (Crop, (int,)),
    "flip": (Flip, (float,)),
    "cutout": (Cutout, (int,)),
    "resizedcrop": (ResizedCrop, (float,)),
    "jitter": (Jitter, (float, float, float)),
    "gray": (Gray, (float,)),
    "blur": (Blur, (float,)),
    "autoaugment": (AutoAugment, (int,)),
    "randaugment": (RandAugment, (int, int, int)),
    "trivialaugment": (TrivialAugment, (int,)),
}

# The long-tail recipes: `strong` and `sim` are PaCo's, BCL's and ProCo's views at 32 pixels, `rand` and `randstack`
# PaCo's at 224 (dvlab-research/Parametric-Contrastive-Learning, paco_cifar.py and paco_lt.py).
PRESETS: Final = {
    "none": "",
    "auto": "crop+flip",
    "strong": "crop+flip+autoaugment+cutout",
    "sim": "resizedcrop:0.2+flip+jitter:0.4:0.1:0.8+gray:0.2+blur:0.5",
    "rand": "resizedcrop:0.08+flip+jitter:0.4:0:1+randaugment:2:30",
    "randstack": "resizedcrop:0.08+flip+jitter:0.4:0:1+gray:0.2+blur:0.5+randaugment:2:30",
}


def parse_augmentation(text: str, *, image_size: int) -> Augmentation:
    """An augmentation from its name, for example "crop+flip+cutout", "randaugment:2:10" or "strong".

    Args:
        text: Names of `STEPS` or `PRESETS`, joined by "+". Options follow a colon, in the order of the step's fields:
            crop[:PAD] flip[:P] cutout[:SIDE] resizedcrop[:SCALE] jitter[:STRENGTH[:HUE[:P]]] gray[:P] blur[:P]
            autoaugment[:FILL] randaugment[:N[:M[:FILL]]] trivialaugment[:FILL].
        image_size: Side of the images, from which PAD is an eighth and SIDE a half unless they are given.

    Raises:
        InputError: Unknown name, too many options, or an option out of range.

    Examples:
        >>> parse_augmentation("auto", image_size=32)
        Augmentation(steps=(Crop(pad=4), Flip(p=0.5)))
    """
    return Augmentation(tuple(step for part in text.split("+") for step in _steps(part.strip(), image_size)))


def parse_views(text: str, *, image_size: int) -> MultiView:
    """One augmentation a view, separated by ",": "strong,sim,sim" are the three views of BCL."""
    return MultiView(tuple(parse_augmentation(view, image_size=image_size) for view in text.split(",")))


def _steps(part: str, image_size: int) -> list[Step]:
    if part in PRESETS:
        return [_step(step, image_size) for step in PRESETS[part].split("+") if step]
    return [_step(part, image_size)]


def _step(part: str, image_size: int) -> Step:
    name, *texts = part.split(":")
    if name not in STEPS:
        raise InputError("an augmentation", repr(name), nearest(name, [*STEPS, *PRESETS]))
    make, types = STEPS[name]
    try:
        options = [of(text) for of, text in zip(types, texts, strict=False)]
    except ValueError:
        options = []
    if len(options) != len(texts):
        example = {"crop": "crop:4", "cutout": "cutout:16"}.get(name, name)
        kinds = ", ".join(of.__name__ for of in types)
        raise InputError(f"{name} with at most these options: {kinds}", repr(part), f"write for example {example}")
    if name == "crop" and not options:
        options = [max(1, image_size // 8)]
    if name == "cutout" and not options:
        options = [max(1, image_size // 2)]
    return make(*options)
