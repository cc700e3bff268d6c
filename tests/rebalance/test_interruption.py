from __future__ import annotations

import signal
import threading
import time

import pytest

from rebalance import interruption
from rebalance.interruption import Interruption


def test_the_first_signal_waits_until_it_is_asked_for() -> None:
    with Interruption() as inside:
        assert inside.heard is None
        inside.act()
        signal.raise_signal(signal.SIGINT)
        time.sleep(0)  # where Python would act on it
        assert inside.heard == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            inside.act()


def test_sigterm_ends_with_the_code_it_would_have_had() -> None:
    with Interruption() as inside:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit) as stop:
            inside.act()
    assert stop.value.code == 143


def test_the_second_signal_acts_at_once() -> None:
    with Interruption():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_handlers_of_before_come_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_other_threads_leave_signals_alone() -> None:
    found = []

    def look() -> None:
        with Interruption():
            found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


def test_ranks_leave_signals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "world_size", lambda: 2)
    before = signal.getsignal(signal.SIGINT)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) == before
