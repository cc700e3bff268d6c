from __future__ import annotations

import threading
import time

import pytest
import torch

from generators.base import Generated, Job
from generators.manifest import Row
from pipelines import image_writers
from pipelines.image_writers import ImageWriters
from rebalance.errors import RunError


def jobs(n: int, first: int = 0) -> list[Job]:
    return [Job("g", "a", 0, i, i) for i in range(first, first + n)]


def made(n: int) -> Generated:
    return Generated(torch.zeros(n, 3, 4, 4), [""] * n)


def work(writers: ImageWriters, n: int) -> None:
    with writers:
        writers.put(jobs(n), made(n))
        writers.rest()


def test_every_image_is_written_once_and_noted() -> None:
    noted: list[Row] = []
    written: list[int] = []

    def write(job: Job, image: torch.Tensor, failure: str) -> Row:
        time.sleep(0.002 * (job.index % 3))
        written.append(job.index)
        return {"index": job.index, "failure": failure}

    with ImageWriters(write, noted.extend, 3) as writers:
        returned = writers.put(jobs(7), made(7)._replace(failures=["", "not finite", *[""] * 5]))
        returned += writers.put(jobs(5, 7), made(5))
        returned += writers.rest()
    assert sorted(written) == list(range(12))
    assert returned == noted
    assert sorted(row["index"] for row in noted) == list(range(12))
    assert [row["index"] for row in noted if row["failure"]] == [1]


def test_images_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_writers, "_WAITING_BYTES", 3 * 3 * 4 * 4 * 4)
    gate = threading.Event()

    def write(job: Job, image: torch.Tensor, failure: str) -> Row:
        gate.wait(10)
        return {"index": job.index}

    with ImageWriters(write, lambda rows: None, 2) as writers:
        assert writers.put(jobs(3), made(3)) == []  # three may wait
        threading.Timer(0.1, gate.set).start()
        start = time.monotonic()
        assert len(writers.put(jobs(3, 3), made(3))) >= 3  # three more have to wait for three
        assert time.monotonic() - start > 0.05


def test_what_is_on_disk_is_noted_though_another_image_fails() -> None:
    noted: list[Row] = []

    def write(job: Job, image: torch.Tensor, failure: str) -> Row:
        if job.index == 2:
            raise OSError("disk full")
        return {"index": job.index}

    with pytest.raises(RunError, match="cannot write an image: disk full"):
        work(ImageWriters(write, noted.extend, 1), 5)
    indices = [row["index"] for row in noted]
    assert {0, 1} <= set(indices) <= {0, 1, 3, 4}
    assert len(indices) == len(set(indices))


def test_other_errors_come_through_and_stop_the_threads() -> None:
    def write(job: Job, image: torch.Tensor, failure: str) -> Row:
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        work(ImageWriters(write, lambda rows: None, 2), 4)
    assert not any(thread.name.startswith("write-images") for thread in threading.enumerate())
