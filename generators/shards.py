"""Images in WebDataset shards: tar files of some thousand images each, for data too many for single files.

Each image is three members of one key: KEY.png (or .webp, .jpg), KEY.cls with the class id, KEY.json with its manifest
row. https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from generators.image_files import SUFFIXES
from generators.manifest import Row
from rebalance.data.decoding import to_rgb
from rebalance.data.table import ByteArray
from rebalance.errors import InputError
from rebalance.files import write_json


def write_shards(folder: Path, rows: Sequence[Row], root: Path, classes: Sequence[str], per_shard: int) -> None:
    """Write the images of `rows` to `folder`, `per_shard` to a file; each file whole or not at all.

    Files that are there already are kept: the same rows give the same files.

    Args:
        folder: Gets 000000.tar, 000001.tar, … and classes.json.
        rows: Of a manifest, with paths.
        root: What the paths are relative to.
        classes: Class names, by id.
        per_shard: Images in a file.
    """
    folder.mkdir(exist_ok=True)
    ordered = sorted(rows, key=lambda row: (int(row["label"]), int(row["index"])))
    for number, start in enumerate(range(0, len(ordered), per_shard)):
        target = folder / f"{number:06d}.tar"
        if target.exists():
            continue
        building = folder / f".{target.name}.tmp"
        with building.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for row in ordered[start : start + per_shard]:
                    _add(tar, row, root)
            file.flush()
            os.fsync(file.fileno())
        building.replace(target)
    write_json(folder / "classes.json", list(classes))


class ShardImage(NamedTuple):
    """An image of a shard: the name of its class, and its pixels (H, W, 3) uint8."""

    class_name: str
    pixels: ByteArray


def shard_files(folder: Path) -> list[Path]:
    """The shards in a folder, or in its folder `shards`."""
    return sorted(folder.glob("*.tar")) or sorted((folder / "shards").glob("*.tar"))


def read_shards(files: Sequence[Path]) -> Iterator[ShardImage]:
    """The images of shards, in order.

    Raises:
        InputError: A damaged file, or an image without its class name.
    """
    for file in files:
        try:
            _check_end(file)
            with tarfile.open(file) as tar:
                yield from _read(tar)
        except (tarfile.TarError, OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                "whole shards of `rebalance synthesize`", f"{file}: {error!r}", "write it again"
            ) from error


def _add(tar: tarfile.TarFile, row: Row, root: Path) -> None:
    key = f"{row['label']:05d}-{row['index']:08d}"
    told = json.dumps(row, ensure_ascii=False, sort_keys=True)
    parts = {
        Path(row["path"]).suffix: (root / row["path"]).read_bytes(),
        ".cls": str(row["label"]).encode(),
        ".json": told.encode(),
    }
    for suffix, content in parts.items():
        member = tarfile.TarInfo(key + suffix)
        member.size = len(content)
        tar.addfile(member, BytesIO(content))


def _check_end(file: Path) -> None:
    """Two blocks of zeros end a tar file; without them it was cut short, which the library would not say."""
    with file.open("rb") as opened:
        opened.seek(-2 * tarfile.BLOCKSIZE, os.SEEK_END)
        if any(opened.read()):
            raise ValueError("cut short")


def _read(tar: tarfile.TarFile) -> Iterator[ShardImage]:
    pixels: dict[str, ByteArray] = {}
    for member in tar:
        key, _, suffix = member.name.partition(".")
        content = tar.extractfile(member)
        if content is None:
            continue
        if f".{suffix}" in SUFFIXES.values():
            with Image.open(content) as image:
                pixels[key] = np.asarray(to_rgb(image), dtype=np.uint8)
        elif suffix == "json":
            yield ShardImage(str(json.load(content)["class"]), pixels.pop(key))
    if pixels:
        raise ValueError(f"no class of {next(iter(pixels))}")
