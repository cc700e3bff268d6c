from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rebalance.data import stream
from rebalance.data.decoding import decode
from rebalance.data.stream import stream_images

CPU = torch.device("cpu")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Ten images of several sizes, of which the fifth and the sixth cannot be read."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 9, 3), dtype=np.uint8)
    names = [str(tmp_path / f"{i}.png") for i in range(10)]
    for i, name in enumerate(names):
        Image.fromarray(pixels[i, : 12 - i % 3]).save(name)
    for name in names[4:6]:
        Path(name).write_bytes(b"broken")
    return names


@pytest.mark.parametrize("workers", [0, 2])
def test_every_row_comes_once_as_pixels_or_as_a_failure(files: list[str], workers: int) -> None:
    rows = np.arange(10)[::-1].copy()
    batches = list(stream_images(files, rows, 8, batch_size=4, workers=workers, device=CPU))
    assert [batch.rows.tolist() for batch in batches] == [[9, 8, 7, 6], [3, 2], [1, 0]]
    assert [list(batch.failures) for batch in batches] == [[], [5, 4], []]
    assert files[5] in batches[1].failures[5]
    for batch in batches:
        assert batch.images.dtype == torch.uint8
        expected = [decode(files[row], 8) for row in batch.rows]
        np.testing.assert_array_equal(batch.images.permute(0, 2, 3, 1).numpy(), np.stack(expected))


def test_a_batch_of_which_nothing_can_be_read_is_empty(files: list[str]) -> None:
    (batch,) = stream_images(files, np.array([4, 5]), 8, batch_size=4, workers=2, device=CPU)
    assert batch.images.shape == (0, 3, 8, 8)
    assert (batch.rows.tolist(), list(batch.failures)) == ([], [4, 5])


def test_no_rows_are_no_batches(files: list[str]) -> None:
    assert list(stream_images(files, np.array([], dtype=np.int64), 8, batch_size=4, workers=2, device=CPU)) == []


def test_images_are_decoded_once_and_not_before_they_are_needed(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def watch(image: str, size: int) -> np.ndarray:
        seen.append(image)
        return decode(image, size)

    monkeypatch.setattr(stream, "decode", watch)
    batches = stream_images(files, np.arange(10), 8, batch_size=4, workers=0, device=CPU)
    assert seen == []
    next(batches)
    assert seen == files[:4]
    list(batches)
    assert seen == files
