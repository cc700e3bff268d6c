"""What the user sees while a command runs: messages, tables, progress. Only rank 0 speaks."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import final

from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from rebalance.ranks import is_main

log = logging.getLogger("rebalance")
_LINE_SECONDS = 15.0


def configure(verbosity: int) -> None:
    """Send messages to the terminal: -1 warnings only, 0 what matters, 1 everything."""
    level = {-1: logging.WARNING, 0: logging.INFO}.get(max(verbosity, -1), logging.DEBUG)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(lambda record: is_main())
    log.handlers = [handler]
    log.setLevel(level)
    log.propagate = False


def show_progress(shown: bool = True) -> None:
    """Show in Python what the commands show on the terminal: messages, tables, progress; False: warnings alone again.

    A script or a notebook says it once, before its first function; the functions are silent otherwise.
    """
    if shown:
        configure(0)
    else:
        log.handlers, log.propagate = [], True
        log.setLevel(logging.NOTSET)


@cache
def warn_once(text: str) -> None:
    """A warning, once in a process: not again for every training of a pipeline."""
    log.warning("%s", text)


def say(text: str, end: str = "\n") -> None:
    """What a command was asked for, on standard output, once."""
    if is_main():
        print(text, end=end)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> None:
    """A table on standard output, below its title, which may be wider than the table.

    Args:
        title: A line.
        columns: Their names.
        rows: Their cells.
        words: All columns are left-aligned; otherwise the first is, and the others right-aligned.
    """
    if not _shown():
        return
    table = Table(header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if i == 0 or words else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # class names may look like markup
    width = None if sys.stdout.isatty() else 120
    console = Console(width=width, highlight=False)
    console.print(Text(title, style="table.title"), soft_wrap=True)
    console.print(table)


@final
class Progress:
    """A progress bar with rate and time left; on a terminal a bar, elsewhere a line now and then."""

    def __init__(self, total: int, what: str, unit: str, done: int = 0) -> None:
        shown = _shown()
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=what,
            unit=f" {unit}",
            disable=not (shown and sys.stderr.isatty()),
            leave=False,
            dynamic_ncols=True,
        )
        self._lines = shown and not sys.stderr.isatty()
        self._total, self._done, self._begun_with = total, done, done
        self._what, self._unit, self._note = what, unit, ""
        self._start = self._last = time.monotonic()

    def update(self, n: int) -> None:
        """`n` more are done."""
        self._bar.update(n)
        self._done += n
        now = time.monotonic()
        if self._lines and now - self._last >= _LINE_SECONDS:
            self._last = now
            rate = (self._done - self._begun_with) / (now - self._start)
            left = (self._total - self._done) / rate if rate else float("inf")
            log.info(
                "%s: %d of %d %s, %.1f a second, %s left%s",
                self._what,
                self._done,
                self._total,
                self._unit,
                rate,
                _minutes(left),
                self._note and f"; {self._note}",
            )

    def note(self, text: str) -> None:
        """A few words behind the bar."""
        self._note = text
        self._bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


@contextmanager
def progress_bar(total: int, what: str, unit: str, done: int = 0) -> Iterator[Progress]:
    """A `Progress` that closes itself."""
    bar = Progress(total, what, unit, done)
    try:
        yield bar
    finally:
        bar.close()


def _shown() -> bool:
    """Whether this process is to speak: `configure` was called, and not with quiet."""
    return is_main() and bool(log.handlers) and log.isEnabledFor(logging.INFO)


def _minutes(seconds: float) -> str:
    if seconds == float("inf"):
        return "unknown time"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
