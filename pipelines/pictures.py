"""Pictures that a method has to show, as PNG files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MAX_PICTURES = 12
"""Images in a row."""
_TILE, _GAP = 72, 6  # px


def write_pictures(folder: Path, pictures: Mapping[str, Tensor], mean: Tensor, std: Tensor) -> None:
    """Write `folder/pictures/NAME.png`, rows of small images; without pictures no folder.

    Args:
        folder: The run folder.
        pictures: Name → (R, B, 3, H, W), normalised.
        mean: Of pixels in [0, 1], (3,).
        std: Likewise.
    """
    for name, rows in pictures.items():
        target = folder / "pictures"
        target.mkdir(exist_ok=True)
        pixels = rows.float() * std[:, None, None] + mean[:, None, None]
        _sheet((pixels * 255).round().clamp(0, 255).to(torch.uint8).cpu()).save(target / f"{name}.png")


def _sheet(pixels: Tensor) -> Image.Image:
    """Rows of tiles (R, B, 3, H, W) uint8 on white paper; the pixels of small images stay visible."""
    n_rows, n_columns, _, height, _ = pixels.shape
    filter_ = Image.Resampling.NEAREST if height <= _TILE else Image.Resampling.LANCZOS
    step = _TILE + _GAP
    sheet = Image.new("RGB", (n_columns * step + _GAP, n_rows * step + _GAP), (255, 255, 255))
    for row, tiles in enumerate(pixels.permute(0, 1, 3, 4, 2).numpy()):
        for column, tile in enumerate(tiles):
            image = Image.fromarray(np.ascontiguousarray(tile)).resize((_TILE, _TILE), filter_)
            sheet.paste(image, (_GAP + column * step, _GAP + row * step))
    return sheet
