"""Decoded images by row: in one uint8 tensor on the training device, or decoded by workers; the results are equal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rebalance.counts import IntArray
from rebalance.data.decoding import decode
from rebalance.data.table import ByteArray, Image, ImageTable
from rebalance.errors import InputError
from rebalance.transfer import send

Progress = Callable[[int], None]
"""Told how many images were done since the last call."""

SHOWN_FAILURES = 20


class ImageStore(ABC):
    """Images of one table, all of one size."""

    @abstractmethod
    def batches(self, rows: Iterable[IntArray]) -> Iterator[Tensor]:
        """For each array of rows the images (B, 3, S, S) uint8, on the store's device, in order."""

    def get(self, rows: IntArray) -> Tensor:
        """The images (B, 3, S, S) uint8 of these rows."""
        return next(self.batches([rows]))


@final
class ResidentStore(ImageStore):
    """All images decoded in one tensor.

    Args:
        images: (N, 3, S, S) uint8.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def batches(self, rows: Iterable[IntArray]) -> Iterator[Tensor]:
        """See `ImageStore`."""
        for part in rows:
            yield self.images[send(torch.from_numpy(part), self.images.device)]


@final
class WorkerStore(ImageStore):
    """Images decoded when they are needed, by worker processes that run ahead.

    Args:
        table: The images.
        size: Height and width, px.
        workers: Processes; 0 decodes in this one.
        device: Where batches go.
    """

    def __init__(self, table: ImageTable, size: int, *, workers: int, device: torch.device) -> None:
        self.dataset = _Decoded(table.images, size)
        self.workers = workers
        self.device = device

    def batches(self, rows: Iterable[IntArray]) -> Iterator[Tensor]:
        """See `ImageStore`."""
        loader = DataLoader(
            self.dataset,
            batch_sampler=_AsLists(rows),
            num_workers=self.workers,
            collate_fn=torch.stack,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it draws its base seed from the global one
        )
        for images in loader:
            yield send(images, self.device)


@dataclass(frozen=True)
class ReadOptions:
    """How a whole table is read.

    Args:
        workers: Threads.
        skip_corrupt: Go on without images that cannot be read.
        progress: Told of images done.
    """

    workers: int = 1
    skip_corrupt: bool = False
    progress: Progress | None = None


def decode_table(table: ImageTable, size: int, options: ReadOptions = ReadOptions()) -> tuple[Tensor, IntArray]:
    """All images of `table` in one tensor, and the rows that could be read.

    Returns:
        Images (M, 3, size, size) uint8 and their rows (M,); M < N only with `skip_corrupt`.

    Raises:
        InputError: Unreadable images, up to 20 of them named; with `skip_corrupt`, no readable image at all.
    """
    images = torch.empty((len(table), 3, size, size), dtype=torch.uint8)
    failures = _read_all(table, size, options, images)
    readable = readable_rows(len(table), failures, options.skip_corrupt)
    return (images if not failures else images[torch.from_numpy(readable)]), readable


def check_table(table: ImageTable, size: int, options: ReadOptions = ReadOptions()) -> IntArray:
    """The rows of `table` that can be read, (M,); every image is decoded once and forgotten.

    Raises:
        InputError: As `decode_table`.
    """
    return readable_rows(len(table), _read_all(table, size, options, None), options.skip_corrupt)


def unreadable_images(table: ImageTable, options: ReadOptions = ReadOptions()) -> dict[int, str]:
    """Row → reason, for every image that cannot be read."""
    return _read_all(table, 8, options, None)


def readable_rows(n_rows: int, failures: dict[int, str], skip_corrupt: bool) -> IntArray:
    """The rows (M,) beside those that failed.

    Args:
        n_rows: N.
        failures: Row → reason.
        skip_corrupt: Let there be failures.

    Raises:
        InputError: Failures, up to 20 of them named; with `skip_corrupt`, no other row.
    """
    if failures and (not skip_corrupt or len(failures) == n_rows):
        shown = [f"  {reason}" for reason in list(failures.values())[:SHOWN_FAILURES]]
        more = [f"  … and {len(failures) - SHOWN_FAILURES} more"] if len(failures) > SHOWN_FAILURES else []
        raise InputError(
            "readable images",
            "\n".join([f"{len(failures)} of {n_rows} that cannot be read:", *shown, *more]),
            "mend or remove them, or go on without them with --skip-corrupt, in Python skip_corrupt=True",
        )
    return np.setdiff1d(np.arange(n_rows, dtype=np.int64), np.fromiter(failures, dtype=np.int64, count=len(failures)))


def pixel_statistics(store: ImageStore, n_images: int, limit: int = 2048) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in [0, 1], over at most `limit` rows spread evenly."""
    rows = np.unique(np.linspace(0, n_images - 1, min(n_images, limit)).astype(np.int64))
    total, squares, n_pixels = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0
    for images in store.batches(np.array_split(rows, max(1, len(rows) // 256))):
        values = images.cpu().to(torch.float64) / 255
        total += values.sum(dim=(0, 2, 3))
        squares += values.square().sum(dim=(0, 2, 3))
        n_pixels += values[:, 0].numel()
    mean = total / n_pixels
    std = (squares / n_pixels - mean.square()).clamp_min(0).sqrt()
    return mean.tolist(), std.clamp_min(1e-3).tolist()


def _read_all(table: ImageTable, size: int, options: ReadOptions, into: Tensor | None) -> dict[int, str]:
    """Decode every row in threads (Pillow frees the lock while it decodes); row → reason for those that fail."""
    failures: dict[int, str] = {}

    def read(rows: range) -> int:
        for row in rows:
            try:
                pixels = decode(table.images[row], size)
            except OSError as error:
                failures[row] = str(error)
                continue
            if into is not None:
                into[row] = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        return len(rows)

    parts = [range(start, min(start + 256, len(table))) for start in range(0, len(table), 256)]
    with ThreadPoolExecutor(max_workers=max(1, options.workers)) as pool:
        for n_done in pool.map(read, parts):
            if options.progress is not None:
                options.progress(n_done)
    return dict(sorted(failures.items()))


@final
class _Decoded(Dataset[Tensor]):
    def __init__(self, images: Sequence[Image] | ByteArray, size: int) -> None:
        self.images = images
        self.size = size

    def __getitem__(self, row: int) -> Tensor:
        pixels = torch.from_numpy(decode(self.images[row], self.size).copy())
        return pixels.permute(2, 0, 1).contiguous()


@final
class _AsLists:
    """Rows as index lists; made lazily, so that a whole training's batches cost nothing ahead."""

    def __init__(self, rows: Iterable[IntArray]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[list[int]]:
        return (part.tolist() for part in self.rows)
