from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rebalance.data.store import (
    ReadOptions,
    ResidentStore,
    WorkerStore,
    check_table,
    decode_table,
    pixel_statistics,
    unreadable_images,
)
from rebalance.data.table import ImageTable
from rebalance.errors import InputError

CPU = torch.device("cpu")
GOING_ON = ReadOptions(skip_corrupt=True)


def table_of(images: list[str] | np.ndarray) -> ImageTable:
    return ImageTable(images, np.zeros(len(images), dtype=np.int64), ("a",))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> ImageTable:
    """Files of several shapes and formats."""
    folder, stream = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = []
    for i in range(11):
        shape = tuple(stream.integers(8, 40, 2)) if i else (16, 16)
        path = folder / f"{i}.{('png', 'jpg', 'webp')[i % 3]}"
        Image.fromarray(stream.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(path)
        paths.append(str(path))
    return table_of(paths)


def damaged(folder: Path, n: int, broken: set[int]) -> ImageTable:
    paths = [folder / f"{i:03d}.png" for i in range(n)]
    for i, path in enumerate(paths):
        if i in broken:
            path.write_bytes(b"no image")
        else:
            Image.new("RGB", (8, 8), (i, i, i)).save(path)
    return table_of([str(path) for path in paths])


# The stores


@pytest.mark.parametrize("workers", [0, 2])
def test_resident_and_worker_stores_give_the_same_batches(photos: ImageTable, workers: int) -> None:
    images, rows = decode_table(photos, 16)
    assert rows.tolist() == list(range(11))
    resident = ResidentStore(images)
    worker = WorkerStore(photos, 16, workers=workers, device=CPU)
    parts = [np.array(part, dtype=np.int64) for part in ([3, 1, 3], [10], [0, 5, 7, 2, 9], list(range(11)))]
    given = [list(store.batches(iter(parts))) for store in (resident, worker)]
    assert [batch.shape for batch in given[0]] == [(len(part), 3, 16, 16) for part in parts]
    for one, other in zip(*given, strict=True):
        assert one.dtype == torch.uint8
        assert torch.equal(one, other)
    assert torch.equal(resident.get(parts[0]), worker.get(parts[0]))


def test_arrays_are_stored_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    images, _ = decode_table(table_of(pixels), 8)
    np.testing.assert_array_equal(images.numpy(), pixels.transpose(0, 3, 1, 2))
    worker = WorkerStore(table_of(pixels), 8, workers=0, device=CPU)
    assert torch.equal(worker.get(np.arange(5)), images)


def test_a_worker_store_reads_no_further_ahead_than_its_queue_and_draws_no_global_number(photos: ImageTable) -> None:
    taken: list[int] = []

    def endless():  # type: ignore[no-untyped-def]
        while True:
            taken.append(1)
            yield np.array([0, 1])

    state = torch.get_rng_state()
    batches = WorkerStore(photos, 16, workers=0, device=CPU).batches(endless())
    next(batches)
    assert len(taken) <= 2
    assert torch.equal(state, torch.get_rng_state())


# Reading whole tables


def test_threads_read_every_row_once_in_place(tmp_path: Path) -> None:
    pixels = np.arange(700, dtype=np.uint16).astype(np.uint8)[:, None, None, None].repeat(3, axis=3)
    table = table_of(np.broadcast_to(pixels, (700, 8, 8, 3)).copy())
    told: list[int] = []
    images, rows = decode_table(table, 8, ReadOptions(workers=3, progress=told.append))
    assert images[:, 0, 0, 0].tolist() == [row % 256 for row in range(700)]
    assert rows.tolist() == list(range(700))
    assert sum(told) == 700


def test_up_to_twenty_unreadable_images_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    table = damaged(tmp_path, 40, set(range(3, 28)))
    with pytest.raises(InputError) as caught:
        decode_table(table, 8)
    lines = caught.value.got.splitlines()
    assert lines[0] == "25 of 40 that cannot be read:"
    assert [f"{i:03d}.png" in line for i, line in enumerate(lines[1:21], 3)] == [True] * 20
    assert lines[21:] == ["  … and 5 more"]
    assert "--skip-corrupt" in caught.value.fix
    with pytest.raises(InputError, match=r"25 of 40"):
        check_table(table, 8)


def test_twenty_unreadable_images_have_no_more(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        check_table(damaged(tmp_path, 21, set(range(20))), 8)
    assert len(caught.value.got.splitlines()) == 21


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(InputError, match=r"half.jpg"):
        decode_table(table_of([str(path)]), 8)


def test_skipping_leaves_the_readable_rows(tmp_path: Path) -> None:
    table = damaged(tmp_path, 6, {0, 4})
    images, rows = decode_table(table, 8, GOING_ON)
    assert rows.tolist() == check_table(table, 8, GOING_ON).tolist() == [1, 2, 3, 5]
    assert images[:, 0, 0, 0].tolist() == [1, 2, 3, 5]
    assert list(unreadable_images(table)) == [0, 4]
    assert "004.png" in unreadable_images(table)[4]


def test_nothing_readable_is_refused_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 of 3 that cannot be read"):
        decode_table(damaged(tmp_path, 3, {0, 1, 2}), 8, GOING_ON)


# Statistics


@pytest.mark.parametrize("n", [1, 5, 700])
def test_statistics_are_those_of_numpy(n: int) -> None:
    pixels = np.random.default_rng(n).integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)
    pixels[:, 1] //= 3
    mean, std = pixel_statistics(ResidentStore(torch.from_numpy(pixels)), n)
    np.testing.assert_allclose(mean, (pixels / 255).mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, (pixels / 255).std(axis=(0, 2, 3)), rtol=1e-9)


def test_statistics_of_many_images_take_a_share_of_them_evenly() -> None:
    pixels = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(100, 3, 2, 2).contiguous()
    mean, _ = pixel_statistics(ResidentStore(pixels), 100, limit=12)
    rows = np.unique(np.linspace(0, 99, 12).astype(int))
    np.testing.assert_allclose(mean, [rows.mean() / 255] * 3, rtol=1e-12)


def test_constant_images_do_not_divide_by_zero() -> None:
    _, std = pixel_statistics(ResidentStore(torch.full((3, 3, 4, 4), 7, dtype=torch.uint8)), 3)
    assert std == [1e-3] * 3
