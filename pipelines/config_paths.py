"""Paths in configs may be given as text."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any


def paths_from_text(config: Any) -> None:
    """Turn text into a `Path` in every field that holds paths, and one path into a tuple where several may be."""
    for field in fields(config):
        value = getattr(config, field.name)
        if "Path" not in str(field.type):
            continue
        if isinstance(value, str | Path) and "tuple[Path" in str(field.type):
            object.__setattr__(config, field.name, (Path(value),))
        elif isinstance(value, str):
            object.__setattr__(config, field.name, Path(value))
        elif isinstance(value, list | tuple):
            object.__setattr__(config, field.name, tuple(Path(item) for item in value))
