"""Which operations, how often and how strong: AutoAugment's CIFAR-10 policy, RandAugment, TrivialAugment.

Spaces and defaults are torchvision's (transforms v2), but for the fill: mid-grey, as in the released code of the
long-tail recipes (PaCo, ProCo), where torchvision's default is black.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, TypeAlias, final

import torch
from torch import Tensor

from rebalance.data.augmentation.operations import IDENTITY, OPERATIONS, apply_operations
from rebalance.data.augmentation.rows import choose
from rebalance.errors import InputError

ENHANCEMENTS = ("Brightness", "Color", "Contrast", "Sharpness")
Turn: TypeAlias = tuple[Tensor, Tensor]  # operation and magnitude of each image
SIGNED = torch.tensor([name.startswith(("Shear", "Translate", "Rotate", *ENHANCEMENTS)) for name in OPERATIONS])
N_CHOICES = OPERATIONS.index("Invert")  # RandAugment and TrivialAugment choose from all that come before it
BINS = 31
GREY = 128

# (operation, probability, magnitude out of 0 … 9), twice. Cubuk et al., AutoAugment, CVPR 2019, appendix, table 7.
CIFAR10_POLICY: Final = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
CIFAR10_OPERATIONS = torch.tensor([[OPERATIONS.index(name) for name, _, _ in pair] for pair in CIFAR10_POLICY])
CIFAR10_PROBABILITIES = torch.tensor([[probability for _, probability, _ in pair] for pair in CIFAR10_POLICY])
CIFAR10_LEVELS = torch.tensor([[level for _, _, level in pair] for pair in CIFAR10_POLICY])


@cache
def magnitudes(bins: int, height: int, width: int, *, wide: bool = False) -> Tensor:
    """Magnitude of each operation at each level, float32 (operations, bins); 0 for those that have none.

    Args:
        bins: Levels, from 0 to bins - 1.
        height: Of the images.
        width: Of the images.
        wide: TrivialAugment's wide space instead of AutoAugment's.
    """
    shear, rotate, enhance = (0.99, 135.0, 0.99) if wide else (0.3, 30.0, 0.9)
    across, down = (32.0, 32.0) if wide else (150.0 / 331.0 * width, 150.0 / 331.0 * height)
    table = torch.zeros(len(OPERATIONS), bins)
    largest = {"ShearX": shear, "ShearY": shear, "TranslateX": across, "TranslateY": down, "Rotate": rotate}
    largest |= dict.fromkeys(ENHANCEMENTS, enhance)
    for name, value in largest.items():
        table[OPERATIONS.index(name)] = torch.linspace(0.0, value, bins)
    bits_lost = torch.arange(bins) / ((bins - 1) / (6 if wide else 4))
    table[OPERATIONS.index("Posterize")] = (8 - bits_lost).round()
    table[OPERATIONS.index("Solarize")] = 255.0 * torch.linspace(1.0, 0.0, bins)
    return table


def _check_fill(fill: int) -> None:
    if not 0 <= fill <= 255:
        raise InputError("a fill in 0 … 255", str(fill), "use 128 for mid-grey, 0 for black")


def _take(turns: Iterator[Turn], images: Tensor, fill: int) -> Tensor:
    for operation, magnitude in turns:
        images = apply_operations(images, operation, magnitude, fill)
    return images


def _signed(operation: Tensor, magnitude: Tensor, uniform: Tensor) -> Tensor:
    return torch.where(SIGNED[operation] & (uniform < 0.5), -magnitude, magnitude)


@final
@dataclass(frozen=True)
class AutoAugment:
    """One of the 25 pairs of operations learned on CIFAR-10, each operation with its own probability.

    Cubuk et al., AutoAugment: Learning Augmentation Strategies from Data, CVPR 2019. The released code of the long-tail
    recipes shears bicubically and rotates one way only; here, as in torchvision, nearest pixels and both ways.

    Args:
        fill: Value of the pixels that come in from outside.
    """

    fill: int = GREY
    n_uniforms = 5

    def __post_init__(self) -> None:
        _check_fill(self.fill)

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Images after all their turns."""
        return _take(self.turns(uniforms, images.shape[-2], images.shape[-1]), images, self.fill)

    def turns(self, uniforms: Tensor, height: int, width: int) -> Iterator[Turn]:
        """What happens to each image: twice an operation (B,) and a magnitude (B,)."""
        pair = choose(uniforms[:, 0], len(CIFAR10_POLICY))
        table = magnitudes(10, height, width)
        for turn in range(2):
            skipped = uniforms[:, 1 + turn] >= CIFAR10_PROBABILITIES[pair, turn]
            operation = CIFAR10_OPERATIONS[pair, turn].masked_fill(skipped, IDENTITY)
            yield operation, _signed(operation, table[operation, CIFAR10_LEVELS[pair, turn]], uniforms[:, 3 + turn])


@final
@dataclass(frozen=True)
class RandAugment:
    """`n` operations one after another, each any of 14 (not Invert), all at one magnitude.

    Cubuk et al., RandAugment: Practical automated data augmentation with a reduced search space, NeurIPS 2020.

    Args:
        n: Operations.
        m: Magnitude from 0 to 30, torchvision's scale. timm's scale, which the long-tail papers use, ends at 10: their
            "rand-n2-m10" reaches as far as m = 30 here.
        fill: Value of the pixels that come in from outside.
    """

    n: int = 2
    m: int = 10
    fill: int = GREY

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 <= self.m < BINS:
            raise InputError("n >= 1 and m in 0 … 30", f"randaugment:{self.n}:{self.m}", "use for example 2:10")
        _check_fill(self.fill)

    @property
    def n_uniforms(self) -> int:
        """Operation and sign of each turn."""
        return 2 * self.n

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Images after all their turns."""
        return _take(self.turns(uniforms, images.shape[-2], images.shape[-1]), images, self.fill)

    def turns(self, uniforms: Tensor, height: int, width: int) -> Iterator[Turn]:
        """What happens to each image: n times an operation (B,) and a magnitude (B,)."""
        level = magnitudes(BINS, height, width)[:, self.m]
        for turn in range(self.n):
            operation = choose(uniforms[:, 2 * turn], N_CHOICES)
            yield operation, _signed(operation, level[operation], uniforms[:, 2 * turn + 1])


@final
@dataclass(frozen=True)
class TrivialAugment:
    """One operation, any of 14 (not Invert), at a random magnitude from a wide range.

    Müller and Hutter, TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation, ICCV 2021.

    Args:
        fill: Value of the pixels that come in from outside.
    """

    fill: int = GREY
    n_uniforms = 3

    def __post_init__(self) -> None:
        _check_fill(self.fill)

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Images after all their turns."""
        return _take(self.turns(uniforms, images.shape[-2], images.shape[-1]), images, self.fill)

    def turns(self, uniforms: Tensor, height: int, width: int) -> Iterator[Turn]:
        """What happens to each image: once an operation (B,) and a magnitude (B,)."""
        operation = choose(uniforms[:, 0], N_CHOICES)
        table = magnitudes(BINS, height, width, wide=True)
        yield operation, _signed(operation, table[operation, choose(uniforms[:, 1], BINS)], uniforms[:, 2])
