"""What a class-conditional diffusion model needs for images of a size, where nothing else is said."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST = 64  # px; beyond, a pixel-space model learns too slowly
_SMALL = 16  # px


@dataclass(frozen=True)
class SizeSettings:
    """Network and training for images of one size.

    Args:
        image_size: Height and width of what the network makes, px.
        channels: Of the U-Net, at each level.
        layers: Residual blocks at each level.
        updates: Length of training.
        batch_size: Images per update.
        lr: Learning rate of AdamW.
    """

    image_size: int
    channels: tuple[int, ...]
    layers: int
    updates: int
    batch_size: int
    lr: float


def settings_for(image_size: int, channels: tuple[int, ...] | None = None) -> SizeSettings:
    """The settings for images of `image_size` px, of which the network makes at most 64.

    Args:
        image_size: Height and width of the real images.
        channels: Of the U-Net, where they are chosen already.

    Examples:
        >>> settings_for(28).image_size, settings_for(224).image_size
        (28, 64)
    """
    small = image_size <= _SMALL
    channels = channels or ((32, 64) if small else (64, 128, 128))
    step = 2 ** (len(channels) - 1)
    size = max(min(image_size, LARGEST) // step, 2) * step
    if small:
        return SizeSettings(size, channels, layers=1, updates=1000, batch_size=64, lr=1e-3)
    return SizeSettings(size, channels, layers=2, updates=20_000, batch_size=256, lr=4e-4)
