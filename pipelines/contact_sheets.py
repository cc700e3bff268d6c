"""Contact sheets: for each class a row of real images, of kept ones, and of rejected ones with the reason.

Two more rows show the kept images that are most like a real one, in pixels, above that real one: what a generator has
learnt by heart is seen there first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from generators.image_files import folder_name
from generators.manifest import KEPT, REJECTED, Row, rows_by_class
from rebalance.data.decoding import decode
from rebalance.data.table import ByteArray, ImageTable

COLUMNS = 12
_TILE, _GAP, _TEXT = 72, 6, 18
_INK, _FAINT, _PAPER = (30, 30, 30), (110, 110, 110), (255, 255, 255)


def write_contact_sheets(folder: Path, rows: Sequence[Row], table: ImageTable, pixels: Tensor) -> None:
    """One PNG per class that has candidates, in `folder/contact_sheets`.

    Args:
        folder: Of the synthesis.
        rows: Its manifest.
        table: The real training images.
        pixels: Their pixels at the generator's size, (N, 3, S, S) uint8.
    """
    target = folder / "contact_sheets"
    target.mkdir(exist_ok=True)
    members_of = np.split(np.argsort(table.targets, kind="stable"), np.cumsum(table.counts)[:-1])
    for (name, given), members in zip(rows_by_class(rows, table.classes).items(), members_of, strict=True):
        own = sorted(given, key=lambda row: int(row["index"]))
        if not own:
            continue
        real = [_array(pixels[i]) for i in members[:COLUMNS]]
        kept = [row for row in own if row["verdict"] == KEPT]
        closest = sorted(kept, key=lambda row: float(row["scores"]["copy_distance"]))[:COLUMNS]
        rejected = _varied([row for row in own if row["verdict"] == REJECTED])
        parts = [
            (f"real ({len(members)})", real, [""] * len(real)),
            (f"kept ({len(kept)})", _read(folder, kept[:COLUMNS]), [""] * len(kept[:COLUMNS])),
            (
                f"rejected ({sum(row['verdict'] == REJECTED for row in own)} of {len(own)})",
                _read(folder, rejected),
                [str(row["reason"]) for row in rejected],
            ),
            (f"kept, most like a real image ({len(closest)})", _read(folder, closest), [""] * len(closest)),
            (
                "the real image that each is most like",
                [_array(pixels[members[row["scores"]["nearest_real"]]]) for row in closest],
                [f"{100 * row['scores']['copy_distance']:.0f} % apart" for row in closest],
            ),
        ]
        draw_sheet(name, parts).save(target / f"{folder_name(name)}.png")


def draw_sheet(title: str, parts: Sequence[tuple[str, Sequence[ByteArray], Sequence[str]]]) -> Image.Image:
    """A sheet: a title, then for each part its caption and its images with a line of text under each."""
    font, small = _font(14), _font(10)
    heights = [
        _TEXT + (_TILE if images else 0) + (2 * _TEXT if any(notes) else 0) + 2 * _GAP for _, images, notes in parts
    ]
    width = COLUMNS * (_TILE + _GAP) + _GAP
    sheet = Image.new("RGB", (width, 2 * _TEXT + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, fill=_INK, font=font)
    top = 2 * _TEXT
    for (caption, images, notes), height in zip(parts, heights, strict=True):
        draw.text((_GAP, top), caption, fill=_FAINT, font=font)
        for i, (image, note) in enumerate(zip(images, notes, strict=True)):
            left = _GAP + i * (_TILE + _GAP)
            sheet.paste(_enlarge(image), (left, top + _TEXT + _GAP))
            for line, words in enumerate(_two_lines(note)):
                draw.text((left, top + _TEXT + _GAP + _TILE + 12 * line), words, fill=_FAINT, font=small)
        top += height
    return sheet


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of the figures; Pillow's own has no letters beyond those of English."""
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), size)


def _array(pixels: Tensor) -> ByteArray:
    """(3, S, S) → (S, S, 3)."""
    array: ByteArray = pixels.permute(1, 2, 0).numpy()
    return array


def _enlarge(pixels: ByteArray) -> Image.Image:
    """Small images keep their pixels visible; large ones are scaled down smoothly."""
    filter_ = Image.Resampling.NEAREST if pixels.shape[0] <= _TILE else Image.Resampling.LANCZOS
    return Image.fromarray(pixels).resize((_TILE, _TILE), filter_)


def _read(folder: Path, rows: Sequence[Row]) -> list[ByteArray]:
    blank = np.full((8, 8, 3), 200, dtype=np.uint8)
    return [blank if row["path"] is None else decode(str(folder / row["path"])) for row in rows]


def _varied(rows: list[Row]) -> list[Row]:
    """Up to `COLUMNS` rows, every reason in turn."""
    by_reason: dict[str, list[Row]] = {}
    for row in rows:
        by_reason.setdefault(str(row["reason"]), []).append(row)
    turns = [row for i in range(COLUMNS) for part in by_reason.values() for row in part[i : i + 1]]
    return sorted(turns[:COLUMNS], key=lambda row: str(row["reason"]))


def _two_lines(note: str) -> list[str]:
    words, lines = note.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 12 and len(lines) < 3 and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
