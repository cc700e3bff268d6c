"""Errors a user can act on: what was expected, what was got, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from a user; the command line ends with exit code 2.

    Args:
        expected: What would have been right.
        got: The value found; the class *name* where a class is meant.
        fix: What to do about it.
    """

    def __init__(self, expected: str, got: str, fix: str) -> None:
        super().__init__(f"expected {expected}; got {got}; {fix}")
        self.expected = expected
        self.got = got
        self.fix = fix

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        return type(self), (self.expected, self.got, self.fix)


class RunError(RuntimeError):
    """A run that began and could not go on; the command line ends with exit code 1."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Advice for an unknown name: the nearest valid one, and all of them.

    Examples:
        >>> nearest("focall", ["ce", "focal"])
        "did you mean 'focal'? valid: ce, focal"
    """
    names = sorted(valid)
    return f"{did_you_mean(name, names)}valid: {listed(names)}"


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """The nearest valid name as a question, with a blank behind it; nothing where none is near.

    Examples:
        >>> did_you_mean("focall", ["ce", "focal"]), did_you_mean("x", ["ce", "focal"])
        ("did you mean 'focal'? ", '')
    """
    close = difflib.get_close_matches(name, sorted(valid), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def listed(names: Iterable[str]) -> str:
    """Names in a row; in quotes where one of them has a comma or a blank, so that each can be told from the next.

    Examples:
        >>> listed(["cat", "dog"]), listed(["cat", "hot dog"])
        ('cat, dog', "'cat', 'hot dog'")
    """
    told = list(names)
    ambiguous = any("," in name or name.split() != [name] for name in told)
    return ", ".join(map(repr, told) if ambiguous else told)


def quoted(names: Iterable[str], most: int = 20) -> str:
    """Names in quotes, of more than `most` the first ones.

    Examples:
        >>> quoted(["cat", "hot dog"]), quoted(["cat", "dog", "owl"], 2)
        ("'cat', 'hot dog'", "'cat', 'dog' and 1 more")
    """
    told = list(names)
    more = f" and {len(told) - most} more" if len(told) > most else ""
    return ", ".join(map(repr, told[:most])) + more
