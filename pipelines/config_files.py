"""Configs as dictionaries and YAML files, and what differs between two of them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

import tyro
import yaml
from tyro.conf import OmitArgPrefixes

from pipelines.config import COMMANDS
from pipelines.config_pairs import holds_pairs, pairs_of
from pipelines.given_flags import flag_of
from pipelines.help_texts import groups_of, join_help_lines
from pipelines.setting_kinds import kind_in_words
from rebalance.errors import InputError, nearest

C = TypeVar("C")

UNSET = "<unset>"
"""Stands for a positional argument that a config file leaves to the command line."""

_WITHOUT_EFFECT = set("place out resume dry_run max_minutes max_gb workers cache_gb device download offline".split())
"""Settings that change no result, so a run may be resumed with others."""
ARGUMENT = re.compile(r"Positional.*metavar=.\[?(\w+)")
"""Finds what the usage calls a positional argument, in the annotation of its field."""


def to_dict(config: Any) -> dict[str, Any]:
    """A config as nested dictionaries of plain values."""
    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def to_yaml(config: Any) -> str:
    """A config as YAML; `from_dict(type(config), yaml.safe_load(text))` gives it back."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def from_dict(cls: type[C], values: Mapping[str, Any]) -> C:
    """A config from (nested or flat) dictionaries; what is not named keeps its default.

    Raises:
        InputError: An unknown name, or a value of the wrong type.
    """
    settings = {str(name).replace("-", "_"): value for name, value in _flatten(cls, values)}
    known = leaves(cls)
    for name in settings:
        if name not in known:
            raise InputError(f"settings of {cls.__name__}", repr(name), nearest(name, known))
    config = _parse(cls, known, settings)
    if config is None:
        wrong = [name for name in settings if _parse(cls, known, {name: settings[name]}) is None]
        kinds = kinds_of(cls)
        raise InputError(
            f"valid settings of {cls.__name__}",
            ", ".join(f"{name}={settings[name]!r}" for name in wrong or settings),
            "; ".join(f"{name} is {kind_in_words(kinds[name])}" for name in wrong or settings),
        )
    return config


def read_config_file(path: Path, command: str | None = None) -> dict[str, Any]:
    """The dictionary in a YAML file, such as a run's config.yaml, whose `command` is no setting.

    Args:
        path: The file.
        command: The command that is to read it; None for any.

    Raises:
        InputError: No such file, no YAML, no mapping inside, or a file of another command or of none that is known.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError("a config file", f"no such file: {path}", "check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            "a YAML file", f"{path}: {error}", "mend the file; --print-config shows a valid one"
        ) from error
    if not isinstance(values, dict):
        raise InputError("names and values", f"{type(values).__name__} in {path}", "--print-config shows a valid file")
    written_by = values.pop("command", None)
    if command is None or written_by is None:
        return values
    if not isinstance(written_by, str) or written_by not in COMMANDS:
        raise InputError(f"a command in {path}", f"command: {written_by}", nearest(str(written_by), COMMANDS))
    if written_by != command:
        raise InputError(
            f"a file of `rebalance {command}`",
            f"{path}, a file of `rebalance {written_by}`",
            f"take it with `rebalance {written_by}`, or copy from it what `rebalance {command} --print-config` shows",
        )
    return values


def missing_arguments(config: Any) -> tuple[list[str], list[str]]:
    """The positional arguments of a command, as its usage calls them: those that nothing was given for, and all."""
    missing: list[str] = []
    known: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            less, more = missing_arguments(value)
            missing, known = missing + less, known + more
        elif found := ARGUMENT.search(str(field.type)):
            known.append(found[1])
            missing += [found[1]] if UNSET in str(value) else []
    return missing, known


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines `name: old → new` for the settings that differ and change results."""
    lines: list[str] = []
    for name in [*old, *(name for name in new if name not in old)]:
        if name in _WITHOUT_EFFECT:
            continue
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            lines.append(f"{prefix}{name}: {before!r} → {after!r}")
    return lines


def without_added_defaults(config: C, default: C | None = None, given: Collection[str] = ()) -> C:
    """A config whose lists are those that were given: tyro adds a repeated flag's values to what it began with.

    Pairs NAME=VALUE stay added, since of two values for a name the last wins.

    Args:
        config: What tyro made.
        default: What it began with; None for the defaults of the class.
        given: Names of lists that were given even if they are empty.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]  # a dataclass, as all configs
        value, annotation = getattr(config, field.name), str(field.type)
        before = field.default if default is None else getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = without_added_defaults(value, None if default is None else before, given)
        elif "UseAppendAction" in annotation and not holds_pairs(field):
            added = value[len(cast(Any, before)) :]
            changes[field.name] = added if added or field.name in given else value
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]  # likewise


def parse_pairs(pairs: tuple[str, ...], flag: str) -> dict[str, str]:
    """`("a=1", "b=2")` as a dictionary; the last of a name wins.

    Raises:
        InputError: A pair without an equals sign.
    """
    parsed: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.rpartition("=")
        if not separator or not name:
            raise InputError(f"{flag} NAME=VALUE", repr(pair), "write the name, an equals sign and the value")
        parsed[name] = value
    return parsed


def plain(value: Any) -> Any:
    """A setting as YAML can hold it."""
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):  # one of numpy's numbers, as grids hold them
        return value.item()
    return str(value) if isinstance(value, Path) else value


def leaves(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """The settings of `cls` and of its groups, by name."""
    groups = groups_of(cls)
    found: dict[str, dataclasses.Field[Any]] = {}
    for field in dataclasses.fields(cls):
        found |= leaves(groups[field.name]) if field.name in groups else {field.name: field}
    return found


def kinds_of(cls: type) -> dict[str, Any]:
    """The types of the settings of `cls` and of its groups, by name."""
    groups = groups_of(cls)
    kinds: dict[str, Any] = {}
    for name, hint in get_type_hints(cls).items():
        kinds |= kinds_of(groups[name]) if name in groups else {name: hint}
    return kinds


def _flatten(cls: type, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    groups = groups_of(cls)
    for name, value in values.items():
        if name in groups and isinstance(value, Mapping | None):
            yield from _flatten(groups[name], value or {})  # a section without a line is None
        else:
            yield name, value


def _parse(cls: type[C], known: Mapping[str, dataclasses.Field[Any]], settings: Mapping[str, Any]) -> C | None:
    """A config from flat settings, or None where tyro refuses one."""
    arguments: list[str] = []
    for name, field in known.items():
        value = settings.get(name, UNSET)
        if value is None and str(field.type) == "bool":
            continue  # a name without a value
        if name in settings or _is_required(field):
            arguments += _arguments(field, value)
    join_help_lines(cls)  # tyro reads them once, here or on the command line
    try:
        with redirect_stderr(StringIO()):  # tyro's own words speak of flags
            config = tyro.cli(cls, args=arguments, config=(OmitArgPrefixes,), console_outputs=False)
    except SystemExit:
        return None
    return without_added_defaults(config, given=settings)


def _arguments(field: dataclasses.Field[Any], value: Any) -> list[str]:
    """A setting as command-line arguments."""
    annotation = str(field.type)
    items = [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
    if holds_pairs(field):
        items = pairs_of(value)
    if "Positional" in annotation:
        return items
    flag = flag_of(field.name)
    if isinstance(value, bool) and annotation == "bool":
        return [flag if value else flag.replace("--", "--no-", 1)]
    if "UseAppendAction" in annotation:
        return [part for item in items for part in (flag, item)]
    if value is False and "bool" not in annotation:  # YAML reads a bare `no` so, as in `amp: no`
        items = ["no"]
    return [flag, *items]


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
