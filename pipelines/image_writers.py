"""Encode and write images in threads while the next ones are made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, final

from torch import Tensor

from generators.base import Generated, Job
from generators.manifest import Row
from rebalance.errors import RunError

_WAITING_BYTES = 256 * 1024**2

Write = Callable[[Job, Tensor, str], Row]
"""Writes the image of a job, or notes why there is none; the row that says so."""


@final
class ImageWriters:
    """Threads that write images; only so many images wait for them that memory stays bounded.

    Args:
        write: Writes one.
        note: Told of the rows of images that are on disk, in this thread; also when an error ends the work.
        threads: How many write at a time.
    """

    def __init__(self, write: Write, note: Callable[[list[Row]], None], threads: int) -> None:
        self._write = write
        self._note = note
        self._pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="write-images")
        self._waiting: deque[Future[Row]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        written = [one for one in self._waiting if not one.cancelled() and one.exception() is None]
        self._note([one.result() for one in written])

    def put(self, jobs: Sequence[Job], made: Generated) -> list[Row]:
        """Hand over images; the rows of those that are on disk by now.

        Raises:
            RunError: An image cannot be written.
        """
        for job, image, failure in zip(jobs, made.images, made.failures, strict=True):
            self._waiting.append(self._pool.submit(self._write, job, image, failure))
        most = _WAITING_BYTES // max(1, made.images[0].numel() * made.images.element_size())
        return self._take(lambda: len(self._waiting) > most or self._waiting[0].done())

    def rest(self) -> list[Row]:
        """Wait for all that were handed over; their rows.

        Raises:
            RunError: An image cannot be written.
        """
        return self._take(lambda: True)

    def _take(self, ready: Callable[[], bool]) -> list[Row]:
        rows: list[Row] = []
        try:
            while self._waiting and ready():
                rows.append(self._waiting.popleft().result())
        except OSError as error:
            raise RunError(
                f"cannot write an image: {error}; once there is room, the same command goes on from here"
            ) from error
        finally:
            self._note(rows)
        return rows
