"""What to call a class in a prompt: folder names and WordNet ids as words that a text encoder knows."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rebalance.errors import InputError, nearest

_WORDNET_ID = re.compile(r"n\d{8}")
_LEADING_NUMBER = re.compile(r"^\d+[.\-_ ]+(?=\D)")  # 001.Black_footed_Albatross
_WORD_STARTS = re.compile(r"(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")


def readable(name: str) -> str:
    """A class name as words.

    Examples:
        >>> readable("001.Black_footed_Albatross"), readable("GoldenRetriever"), readable("iPhone")
        ('Black footed Albatross', 'Golden Retriever', 'iPhone')
    """
    words = _LEADING_NUMBER.sub("", name).replace("_", " ").replace("+", " ")
    return " ".join(_WORD_STARTS.sub(" ", words).split()) or name


def class_names(classes: Sequence[str], names: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What to call each class, by id.

    Args:
        classes: Class names of the data, by id.
        names: Class → name, for those that are to be called otherwise; more WordNet ids than the data have are fine.

    Raises:
        InputError: A WordNet id without a name, a name for a class that does not exist, or one name for two classes.
    """
    given = dict(names or {})
    check_known([key for key in given if not _WORDNET_ID.fullmatch(key)], classes, "names")
    called: dict[str, str] = {}
    for name in classes:
        if name not in given and _WORDNET_ID.fullmatch(name):
            advice = nearest(name, given) if 0 < len(given) < 50 else "add it"
            raise InputError("a file of names that has every WordNet id of the data", f"none for {name}", advice)
        text = given[name].strip() if name in given else readable(name)
        other = called.setdefault(text.lower(), name)
        if other != name:
            raise InputError(
                "names that tell the classes apart",
                f"{text!r} for both {other} and {name}",
                "give one of them another name in a file of names, such as `crane, a machine`",
            )
    return tuple(given[name].strip() if name in given else readable(name) for name in classes)


def check_known(keys: Sequence[str], classes: Sequence[str], what: str) -> None:
    """Refuse keys that are no class of the data.

    Raises:
        InputError: With the nearest class.
    """
    unknown = [key for key in keys if key not in set(classes)]
    if unknown:
        raise InputError(f"{what} for classes of the data", repr(unknown[0]), nearest(unknown[0], classes))


def read_names(path: Path) -> dict[str, str]:
    """Class → name from a file.

    `.yaml` and `.json` hold a mapping; `.csv` a class and a name in each row; anything else a class, white space and
    a name in each line, as ImageNet's own list does. Of a WordNet id's synonyms, set apart by commas, the first is
    taken. ImageNet's `{"0": ["n01440764", "tench"], …}` is understood.

    Raises:
        InputError: The file is missing or holds something else.
    """
    pairs: list[tuple[str, str]] = []
    for key, value in _rows(path):
        if isinstance(value, list) and len(value) == 2 and _WORDNET_ID.fullmatch(str(value[0])):
            key, value = str(value[0]), value[1]
        if not isinstance(value, str | int) or not str(value).strip():
            raise InputError("a name for each class", f"{value!r} for {key} in {path}", "write it as CLASS: NAME")
        text = str(value).strip().strip("\"'")
        pairs.append((key, readable(text.split(",")[0]) if _WORDNET_ID.fullmatch(key) else text))
    return dict(pairs)


def read_descriptions(path: Path) -> dict[str, tuple[str, ...]]:
    """Class → descriptions from a file.

    `.yaml` and `.json` map each class to one text or to a list of them; `.csv` holds a class and a text in each row,
    as many rows for a class as it has texts.

    Raises:
        InputError: The file is missing or holds something else.
    """
    found: dict[str, list[str]] = {}
    for key, value in _rows(path):
        texts = value if isinstance(value, list) else [value]
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError(
                "one text or a list of texts for each class",
                f"{value!r} for {key} in {path}",
                "write it as CLASS: TEXT",
            )
        found.setdefault(key, []).extend(" ".join(text.split()) for text in texts)
    return {key: tuple(dict.fromkeys(texts)) for key, texts in found.items()}


def _rows(path: Path) -> list[tuple[str, Any]]:
    """Pairs of a class and what a file says of it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix in (".yaml", ".yml", ".json"):
            values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
            if not isinstance(values, dict):
                raise InputError("a mapping from classes to texts", f"{path} with another value", "write CLASS: TEXT")
            return [(str(key), value) for key, value in values.items()]
    except FileNotFoundError as error:
        raise InputError(f"a file {path.name}", f"none in {path.parent}", "check the path") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError("a YAML, JSON, CSV or text file", f"{path}: {error}", "check the file") from error
    if path.suffix == ".csv":
        rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if row]
        rows = rows[1:] if rows and rows[0][0].strip().lower() in ("class", "label", "id") else rows
    else:
        rows = [re.split(r"[\s:]+", line.strip(), maxsplit=1) for line in text.splitlines() if line.strip()]
    short = next((row for row in rows if len(row) < 2), None)
    if short is not None:
        raise InputError("a class and a text in each line", f"{short[0]!r} alone in {path}", "complete the line")
    return [(row[0].strip(), ", ".join(row[1:]) if path.suffix == ".csv" else row[1]) for row in rows]
