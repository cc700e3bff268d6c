"""Ctrl-C, and the SIGTERM of a scheduler, act between two updates, so that the work up to there can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self, final

from rebalance.ranks import world_size

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@final
class Interruption:
    """Notes the first signal for the loop inside to ask for; the second one acts at once.

    With several ranks, or outside the main thread, signals act as ever: ranks that hear them at different updates
    could not save together.
    """

    def __init__(self) -> None:
        self.heard: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if world_size() == 1 and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.heard is not None:
            self._stop(number)
        self.heard = number

    def act(self) -> None:
        """Do now what the noted signal, if any, asks for.

        Raises:
            KeyboardInterrupt: It was SIGINT.
            SystemExit: It was SIGTERM; its code is 143, as if the signal had ended the process.
        """
        if self.heard is not None:
            self._stop(self.heard)

    def _stop(self, number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
