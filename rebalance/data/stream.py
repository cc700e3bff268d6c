"""Images decoded once, batch by batch, by workers that run ahead; what cannot be read is told batch by batch too.

An `ImageStore` is for images that are all known to be readable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rebalance.counts import IntArray
from rebalance.data.decoding import decode
from rebalance.data.table import Image
from rebalance.transfer import send


class StreamBatch(NamedTuple):
    """A batch of rows.

    Args:
        images: Of those that could be read, (M, 3, S, S) uint8.
        rows: Which they are, (M,).
        failures: Row → reason, for the others.
    """

    images: Tensor
    rows: IntArray
    failures: dict[int, str]


def stream_images(
    images: Sequence[Image], rows: IntArray, size: int, *, batch_size: int, workers: int, device: torch.device
) -> Iterator[StreamBatch]:
    """The rows in order, `batch_size` at a time; at no time more than a few batches are in memory.

    Args:
        images: Files or pixels.
        rows: Which of them, (N,).
        size: Height and width, px.
        batch_size: Rows of a batch.
        workers: Processes; 0, or a single batch, is decoded in this one.
        device: Where batches go.
    """
    parts = _Parts(images, [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)], size)
    loader = DataLoader(
        parts,
        batch_size=None,
        num_workers=workers if len(parts) > 1 else 0,
        collate_fn=_unchanged,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # else it draws its base seed from the global one
    )
    for batch in loader:
        yield batch._replace(images=send(batch.images, device))


@final
class _Parts(Dataset[StreamBatch]):
    def __init__(self, images: Sequence[Image], parts: Sequence[IntArray], size: int) -> None:
        self.images = images
        self.parts = parts
        self.size = size

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> StreamBatch:
        part = self.parts[index]
        pixels = torch.empty((len(part), 3, self.size, self.size), dtype=torch.uint8)
        read: list[int] = []
        failures: dict[int, str] = {}
        for row in part.tolist():
            try:
                decoded = decode(self.images[row], self.size)
            except OSError as error:
                failures[row] = str(error)
                continue
            pixels[len(read)] = torch.from_numpy(decoded.copy()).permute(2, 0, 1)
            read.append(row)
        return StreamBatch(pixels[: len(read)], np.array(read, dtype=np.int64), failures)


def _unchanged(batch: Any) -> Any:
    return batch
